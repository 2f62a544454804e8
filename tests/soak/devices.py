"""Several devices and processes: `python -m tests.soak.devices --output=JSON --markdown=FILE`.

First the whole pipeline runs on one device, on 2 and 4 logical CPUs (`mirrored`), and in 2 and 3
processes over loopback (`multi_worker_mirrored`), all on equal global batches of whole copies (see
tests/support/cluster_runs.py), and what they leave is compared with what one device left. Then workers die,
stand still, fail by themselves or do not come, in every stage; all must end within a bounded time
with a sentence, and the same command must then end as if nothing had happened.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

from cluster_runs import COPIES, KILLED, Cluster, said

TITLE = "equality over devices and processes, death of a worker in every stage"
# (logical CPUs, processes).
SHAPES = {"1": (1, 1), "2 CPUs": (2, 1), "4 CPUs": (4, 1), "2 processes": (1, 2)}
SHAPES["3 processes"] = (1, 3)
_FINISHED = "3 processes"  # whose results the restarts are compared with
TOLERANCE = 1e-4
# Seconds until the last worker is gone; TensorFlow notices a silence after 10 to 30.
BOUND = 60.0
# What of a finished run a stage needs from those before.
_NEEDS = {"supernet": (), "search": ("supernet", "shrink")}
_NEEDS["retrain"] = (*_NEEDS["search"], "search")
_NEEDS["export"] = (*_NEEDS["retrain"], "retrain")
# (stage, whom, where it strikes, what happens, processes)
DEATHS = (
    ("supernet", 1, {"stage": "supernet", "at": 5, "do": "kill"}, 3),
    ("supernet", 0, {"stage": "supernet", "at": 5, "do": "kill"}, 3),
    ("search", 2, {"stage": "search", "at": 2, "do": "kill"}, 3),
    ("search", 0, {"stage": "search", "at": 2, "do": "kill"}, 2),
    ("search", 1, {"stage": "search", "at": 2, "do": "stop"}, 2),
    ("search", 1, {"stage": "search", "at": 2, "do": "fail"}, 3),
    ("retrain", 1, {"stage": "retrain", "at": 3, "do": "kill"}, 3),
    ("retrain", 0, {"stage": "retrain", "at": 3, "do": "kill"}, 3),
    ("export", 0, {"stage": "export", "at": 1, "do": "kill"}, 2),
    ("export", 1, {"stage": "meeting", "at": 2, "do": "kill"}, 2),
)
_WORDS = {"kill": "killed", "stop": "stands still", "fail": "fails by itself"}


def losses(folder: pathlib.Path, stage: str) -> list[float]:
    """The loss curve of a training stage."""
    lines = (folder / stage / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def weights(folder: pathlib.Path) -> dict[str, Any]:
    """Weights, momentum and statistics of the newest checkpoints of both training stages."""
    import numpy as np
    import tensorflow as tf

    found = {}
    for stage in ("supernet", "retrain"):
        path = tf.train.latest_checkpoint(str(folder / stage))
        for name, _ in tf.train.list_variables(path):
            value = np.asarray(tf.train.load_variable(path, name))
            if name.startswith(("model", "optim")) and value.dtype.kind == "f":
                found[f"{stage}/{name}"] = value
    return found


def decisions(folder: pathlib.Path) -> list[Any]:
    """What each shrink dropped and left, without the scores."""
    found = []
    for path in sorted((folder / "shrink").glob("*.json")):
        report = json.loads(path.read_text())
        dropped = [(d["layer"], d["operators"]) for d in report.get("dropped", ())]
        found.append([path.name, dropped, report.get("alive", report)])
    return found


def compare(reference: pathlib.Path, folder: pathlib.Path) -> dict[str, Any]:
    """How far two finished runs are from one another.

    Returns:
      losses, weights (with momentum) and running statistics: the largest differences; shrinks,
      history and best: whether decisions, and the bytes of the search's files, are the same.
    """
    import numpy as np

    curves = [(losses(reference, s), losses(folder, s)) for s in ("supernet", "retrain")]
    same_length = all(len(a) == len(b) for a, b in curves)
    loss = max(abs(x - y) for a, b in curves for x, y in zip(a, b, strict=False))
    first, second = weights(reference), weights(folder)
    largest = {"weights": 0.0, "statistics": 0.0}
    for name, value in first.items():
        # Keras' running variance is the unbiased one of what a replica sees, n / (n - 1).
        kind = "statistics" if "moving" in name else "weights"
        if value.size and name in second:
            largest[kind] = max(largest[kind], float(np.abs(value - second[name]).max()))
    return {
        "losses": loss if same_length else float("inf"),
        "weights": largest["weights"] if first.keys() == second.keys() else float("inf"),
        "statistics": largest["statistics"],
        "shrinks": decisions(reference) == decisions(folder),
        "history": _same(reference, folder, "search/history.jsonl"),
        "best": _same(reference, folder, "search/best.json"),
    }


def _same(reference: pathlib.Path, folder: pathlib.Path, name: str) -> bool:
    return (reference / name).read_bytes() == (folder / name).read_bytes()


def prepare(finished: pathlib.Path, folder: pathlib.Path, stage: str) -> None:
    """A folder as a finished run had it when a stage began."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("params.yaml", "data.json"):
        shutil.copy(finished / name, folder / name)
    for name in _NEEDS[stage]:
        shutil.copytree(finished / name, folder / name)


def die_and_go_on(
    cluster: Cluster,
    finished: pathlib.Path,
    folder: pathlib.Path,
    death: tuple[str, int, Mapping[str, Any], int],
) -> dict[str, Any]:
    """Has a worker die in a stage, looks how the others end, and runs the stage again.

    Args:
      cluster: that forks workers.
      finished: a whole run; for the stages that train, with as many processes.
      folder: for this one; what is in it is removed.
      death: see `DEATHS`.

    Returns:
      {"codes", "seconds" until the last worker was gone, "sentences", "again": codes of the
      restart, "problems": a list of strings}.
    """
    stage, victim, fault, workers = death
    prepare(finished, folder, stage)
    common: dict[str, Any] = {"workers": workers, "stage": stage, "copies": COPIES}
    died = cluster.run(folder, faults={victim: fault}, **common)
    others = [i for i in range(workers) if i != victim]
    problems = []
    if died["codes"][victim] != (2 if fault["do"] == "fail" else -9):
        problems.append(f"the fault itself ended with {died['codes'][victim]}")
    for i in others:
        log = died["logs"][i]
        if died["codes"][i] == KILLED:
            problems.append(f"worker {i} hung")
        elif died["codes"][i] != 3 or "Traceback" in log or not said(log):
            problems.append(f"worker {i} ended with {died['codes'][i]}: {log[-300:]}")
    seconds = max(died["ends"][i] for i in others)
    if seconds > BOUND:
        problems.append(f"the last worker was gone after {seconds} s")
    again = cluster.run(folder, **common)
    if again["codes"] != [0] * workers:
        problems.append(f"the restart ended with {again['codes']}: {again['logs'][0][-300:]}")
    else:
        problems += differences(finished, folder, stage)
    sentences = [said(died["logs"][i]) for i in others]
    return {
        "codes": died["codes"],
        "seconds": seconds,
        "sentences": sentences,
        "again": again["codes"],
        "problems": problems,
    }


def differences(finished: pathlib.Path, folder: pathlib.Path, stage: str) -> list[str]:
    """What of a stage's results is not the same, to the byte or the bit, as in a finished run."""
    import numpy as np
    import tensorflow as tf

    files = {
        "supernet": ["supernet/metrics.jsonl", "shrink/alive.json", "shrink/shrink_01.json"],
        "search": ["search/history.jsonl", "search/best.json"],
        "retrain": ["retrain/metrics.jsonl", "retrain/results.json"],
        "export": [],
    }
    found = [name for name in files[stage] if not _same(finished, folder, name)]
    if stage == "export" and not (folder / "export" / "model.tflite").stat().st_size:
        found.append("export/model.tflite")
    if stage in ("supernet", "retrain"):
        paths = [tf.train.latest_checkpoint(str(f / stage)) for f in (finished, folder)]
        for name, _ in tf.train.list_variables(paths[0]):
            a, b = (np.asarray(tf.train.load_variable(path, name)) for path in paths)
            if name.startswith(("model", "optim")) and a.dtype.kind == "f":
                # A worker's running statistics are saved as the mean over all, which rounds.
                moving = "moving" in name
                same = np.allclose(a, b, 1e-5, 1e-7) if moving else np.array_equal(a, b)
                found += [] if same else [name]
    return [f"differs after the restart: {name}" for name in found]


def run(limit_s: float, seed: int, work: pathlib.Path | None = None) -> dict[str, Any]:
    """Everything, as long as there is time; begins nothing new behind the limit.

    What is finished in `work` is not done again.

    Args:
      limit_s: seconds.
      seed: order of the deaths.
      work: folder; None for a temporary one.

    Returns:
      {"rows": [{fault, stage, tried, survived, seconds, details}], "equality": […], "deaths": […],
      "notes": […]}.
    """
    if work is None:
        with tempfile.TemporaryDirectory() as temporary:
            return run(limit_s, seed, pathlib.Path(temporary))
    end = time.monotonic() + limit_s
    result: dict[str, Any] = {"rows": [], "equality": [], "deaths": [], "notes": []}
    deaths = list(enumerate(DEATHS))
    random.Random(seed).shuffle(deaths)
    jobs = [(f"equality_{name}", _equality, (name,)) for name in SHAPES]
    first = [job for job in jobs if job[2][0] in ("1", _FINISHED)]
    jobs = [*first, *((f"death_{number}", _death, death) for number, death in deaths)]
    jobs = [*jobs, ("death_absent", _absent, ())]
    jobs += [(f"equality_{n}", _equality, (n,)) for n in SHAPES if n not in ("1", _FINISHED)]
    with Cluster(work) as cluster:
        for name, job, arguments in jobs:
            path = work / f"{name.replace(' ', '_')}.json"
            if not path.exists() and time.monotonic() > end:
                result["notes"].append(f"no time was left for {name.replace('_', ' ')}")
                continue
            if not path.exists():
                path.write_text(json.dumps(job(cluster, work, *arguments)), "utf-8")
            found = json.loads(path.read_text("utf-8"))
            _say(f"{name}: {found}")
            result[found["kind"]].append(found)
            row = {"tried": 1, "survived": int(not found["problems"])}
            row = {"fault": found["fault"], "stage": found["stage"], **row}
            if found["fault"]:
                details = found["problems"]
                result["rows"].append({**row, "seconds": found["wall"], "details": details})
    return result


def _equality(cluster: Cluster, work: pathlib.Path, name: str) -> dict[str, Any]:
    devices, workers = SHAPES[name]
    begin, folder = time.monotonic(), work / name.replace(" ", "_")
    found = cluster.run(folder, workers, devices, copies=COPIES, limit=600.0)
    row: dict[str, Any] = {"kind": "equality", "devices": name, "stage": "all", "problems": []}
    row["wall"] = round(time.monotonic() - begin, 1)
    row["fault"] = "" if name == "1" else f"{name} instead of one device"
    if found["codes"] != [0] * workers:
        row["problems"].append(f"ended with {found['codes']}: {found['logs'][0][-300:]}")
        return row
    row |= compare(work / "1", folder)
    for what in ("losses", "weights"):
        if row[what] > TOLERANCE:
            row["problems"].append(f"{what} differ by {row[what]:.1e}")
    row["problems"] += [f"{x} differ" for x in ("shrinks", "history", "best") if not row[x]]
    return row


def _death(
    cluster: Cluster,
    work: pathlib.Path,
    stage: str,
    victim: int,
    fault: Mapping[str, Any],
    workers: int,
) -> dict[str, Any]:
    begin, folder = time.monotonic(), work / f"death_{stage}_{victim}_{fault['do']}"
    finished = work / _FINISHED.replace(" ", "_")
    found = die_and_go_on(cluster, finished, folder, (stage, victim, fault, workers))
    shutil.rmtree(folder, ignore_errors=True)
    who = "chief" if victim == 0 else f"worker {victim}"
    title = f"{who} of {workers} {_WORDS[fault['do']]}"
    wall = round(time.monotonic() - begin, 1)
    return {"kind": "deaths", "fault": title, "stage": stage, "wall": wall, **found}


def _absent(cluster: Cluster, work: pathlib.Path) -> dict[str, Any]:
    """One of three workers does not come."""
    begin, wait = time.monotonic(), 15
    own = "runtime.distribution_strategy=multi_worker_mirrored"
    own = f"--params_override={own},workers.start_seconds={wait}"
    arguments = {0: [own], 1: [own]}
    found = cluster.run(work / "absent", 3, absent=[2], arguments=arguments, limit=120.0)
    problems = [
        f"worker {i} ended with {found['codes'][i]}: {found['logs'][i][-300:]}"
        for i in (0, 1)
        if found["codes"][i] != 3 or "Traceback" in found["logs"][i]
    ]
    wall = round(time.monotonic() - begin, 1)
    row = {"kind": "deaths", "fault": "worker 2 of 3 does not come", "stage": "start"}
    row |= {"wall": wall, "seconds": wall, "codes": found["codes"], "again": None}
    return {**row, "sentences": [said(x) for x in found["logs"][:2]], "problems": problems}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(result: Mapping[str, Any]) -> str:
    """Both tables, as Markdown."""
    lines = [
        "| devices | losses differ by | weights by | running statistics by | shrinks | history | s |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    words = {True: "same", False: "**other**"}
    for row in result["equality"]:
        if "losses" in row:
            cells = [f"{row[name]:.1e}" for name in ("losses", "weights", "statistics")]
            cells += [words[row["shrinks"]], words[row["history"]]]
        else:
            cells = ["**failed**", "", "", "", ""]
        lines.append(f"| {row['devices']} | {' | '.join(cells)} | {row['wall']} |")
    lines += ["", "| stage | fault | others gone after, s | restart ends the same |"]
    lines.append("|---|---|---|---|")
    for row in result["deaths"]:
        good = "**no**" if row["problems"] else ("yes" if row["again"] else "")
        lines.append(f"| {row['stage']} | {row['fault']} | {row['seconds']} | {good} |")
    failed = [(r["fault"], r["stage"], r["details"]) for r in result["rows"] if r["details"]]
    lines += ["", *(f"- {fault}, {stage}: {'; '.join(why)}" for fault, stage, why in failed)]
    lines += [f"- {note}" for note in result["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def run_part(work: pathlib.Path, minutes: float) -> dict[str, Any]:
    """This trial as a part of `python -m tests.soak`."""
    return run(60.0 * minutes, 0, work)


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.devices", description=TITLE)
    parser.add_argument("--minutes", type=float, default=20.0, help="begins nothing new after them")
    parser.add_argument("--seed", type=int, default=0, help="order of the deaths")
    parser.add_argument("--work", help="folder to keep; else a temporary one")
    parser.add_argument("--output", help="JSON file for the result")
    parser.add_argument("--markdown", help="file for the tables")
    options = parser.parse_args(arguments)
    work = pathlib.Path(options.work).absolute() if options.work else None
    result = run(60.0 * options.minutes, options.seed, work)
    result["date"] = datetime.date.today().isoformat()
    if options.output:
        pathlib.Path(options.output).write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    if options.markdown:
        pathlib.Path(options.markdown).write_text(table(result), "utf-8")
    print(table(result))
    return int(any(row["survived"] < row["tried"] for row in result["rows"]))


if __name__ == "__main__":
    sys.exit(main())
