"""Kills, full disks and unwritable folders in every stage of a run; see the package's docstring."""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from .faults import FILLER
from .sittings import Nursery
from .tables import count_rows
from .trials import Trial, reference_run

TITLE = "SIGKILL, SIGTERM, torn checkpoints, full disks and unwritable folders in every stage"
RANDOM_POINTS = 50
_KILLS_A_RUN = 6
# Name of the fault, event, how often it passes first, what happens.
CHOSEN = (
    ("SIGKILL, data written, not in place", r"save after supernet/", 1, "kill"),
    ("SIGKILL, checkpoint in place, not named", r"merge after supernet/", 2, "kill"),
    ("SIGKILL, half a line of metrics", r"append before supernet/metrics", 2, "half"),
    ("SIGKILL, before the rename of 'checkpoint'", r"rename before supernet/checkpoint", 1, "kill"),
    ("SIGKILL, before the rename of the shrink", r"rename before shrink/shrink_01", 1, "kill"),
    ("SIGKILL, an old checkpoint half removed", r"delete after supernet/.*index", 1, "kill"),
    ("SIGTERM, checkpoint half written", r"save after supernet/", 1, "term"),
    ("SIGKILL, before the rename of the space", r"rename before shrink/alive", 1, "kill"),
    ("SIGKILL, half a line of history", r"append before search/history", 5, "half"),
    ("SIGKILL, before the rename of the state", r"rename before search/state", 1, "kill"),
    ("SIGTERM, a line of history written", r"append after search/history", 3, "term"),
    ("SIGKILL, winner written, state not", r"rename after search/best", 1, "kill"),
    ("SIGKILL, data written, not in place", r"save after retrain/", 2, "kill"),
    ("SIGTERM, checkpoint in place, not named", r"merge after retrain/", 1, "term"),
    ("SIGKILL, before the rename of the model", r"rename before retrain/model", 1, "kill"),
    ("SIGKILL, before the rename of the results", r"rename before retrain/results", 1, "kill"),
    ("SIGKILL, export written, not in place", r"rename before export/model\.tflite$", 1, "kill"),
    ("SIGTERM, export's report written", r"rename after export/model\.tflite\.json", 1, "term"),
    ("SIGKILL, SavedModel written, not in place", r"rename before export/saved_model$", 1, "kill"),
    ("SIGKILL, before the summary's rename", r"rename before report/summary\.json", 1, "kill"),
)


def run_part(work: pathlib.Path, minutes: float) -> dict[str, Any]:
    """See the package's docstring."""
    end = time.monotonic() + 60.0 * minutes
    reference = reference_run(work)
    results, notes = work / "results.jsonl", []
    chains: list[tuple[str, Callable[..., list[str]]]] = [
        ("chosen", chosen),
        ("torn", torn),
        ("full disk", full_disk),
        ("unwritable", unwritable),
        ("files in place of folders", blocked),
        ("second process", second_process),
    ]
    chains += [(f"random {seed}", random_kills(seed)) for seed in range(4 * RANDOM_POINTS)]
    while time.monotonic() < end:
        done = read_results(results)
        name, chain = next(pair for pair in chains if pair[0] not in done)
        if name.startswith("random") and random_points(done) >= RANDOM_POINTS:
            break
        begin = time.monotonic()
        with Nursery(work / "logs") as nursery:
            folder = work / name.replace(" ", "_")
            shutil.rmtree(folder, ignore_errors=True)
            trial = Trial(work, folder, nursery)
            said = chain(trial, reference)
        entry = {"chain": name, "seconds": round(time.monotonic() - begin, 1), "notes": said}
        with results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**entry, "events": trial.events}) + "\n")
        if all(event["survived"] for event in trial.events):
            shutil.rmtree(folder, ignore_errors=True)
    done = read_results(results)
    events = [event for entry in done.values() for event in entry["events"]]
    notes = [note for entry in done.values() for note in entry["notes"]]
    left = sum(name not in done for name, _ in chains[:6])
    if left or random_points(done) < RANDOM_POINTS:
        notes.append("the minutes were up; the same command goes on")
    seconds = sum(entry["seconds"] for entry in done.values())
    notes.append(f"{random_points(done)} random points; {seconds / 60:.0f} minutes in all")
    return {"rows": count_rows(events), "notes": notes}


def read_results(path: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The finished chains by name."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return {entry["chain"]: entry for entry in map(json.loads, lines)}


def random_points(done: dict[str, dict[str, Any]]) -> int:
    """How many random kills there were."""
    return sum(len(entry["events"]) for name, entry in done.items() if name.startswith("random"))


def chosen(trial: Trial, reference: pathlib.Path) -> list[str]:
    """Kills at chosen moments of every stage."""
    for name, match, nth, action in CHOSEN:
        number = signal.SIGTERM if action == "term" else signal.SIGKILL
        fault = {"match": match, "nth": nth, "action": action}
        if not trial.kill(name, number, fault=fault):
            if trial.last is not None and trial.last.code == 0:
                trial.note(name, trial.last, "the run ended before the moment came")
            break
    trial.finish(reference)
    return []


def random_kills(seed: int) -> Callable[[Trial, pathlib.Path], list[str]]:
    """Kills at random events and at random times."""

    def run(trial: Trial, reference: pathlib.Path) -> list[str]:
        rng = random.Random(seed)
        # An undisturbed run's time here and now, loading the libraries included.
        whole = json.loads(reference.with_suffix(".json").read_text())["seconds"]
        for _ in range(_KILLS_A_RUN):
            number = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            name = signal.Signals(number).name
            if rng.random() < 0.5:
                action = "kill" if number == signal.SIGKILL else "term"
                action = rng.choice([action, "half"]) if action == "kill" else action
                fault = {"at": rng.randint(1, 130), "stages": True, "action": action}
                alive = trial.kill(f"{name} at a random event", number, fault=fault)
            else:
                seconds = rng.uniform(0.5, whole)
                alive = trial.kill(f"{name} at a random time", number, after=seconds)
            if not alive:
                break
        trial.finish(reference)
        return []

    return run


def newest(folder: pathlib.Path, suffix: str) -> pathlib.Path:
    """A file of the checkpoint with the highest number."""
    found = folder.glob(f"ckpt-*{suffix}")
    return max(found, key=lambda path: int(path.name.split("-")[1].split(".")[0]))


def cut(path: pathlib.Path) -> None:
    """Leaves the first half, as a page that never reached the disk."""
    os.truncate(path, path.stat().st_size // 2)


def flip(path: pathlib.Path) -> None:
    """Changes one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def blank(path: pathlib.Path) -> None:
    """Zeros in place of the content."""
    path.write_bytes(b"\0" * path.stat().st_size)


TEARS = (
    ("torn checkpoint: data cut", 5, lambda f: cut(newest(f, ".data-00000-of-00001"))),
    ("torn checkpoint: a byte changed", 5, lambda f: flip(newest(f, ".data-00000-of-00001"))),
    ("torn checkpoint: index cut", 5, lambda f: cut(newest(f, ".index"))),
    ("torn file 'checkpoint'", 3, lambda f: blank(f / "checkpoint")),
)


def torn(trial: Trial, reference: pathlib.Path) -> list[str]:
    """Damages what a training goes on from; it must say so and go back."""
    for stage in ("supernet", "retrain"):
        for name, nth, tear in TEARS:
            match = rf"rename after {stage}/checkpoint$"
            sitting = trial.sit(fault={"match": match, "nth": nth, "action": "kill"})
            _must_tell(trial)
            tear(trial.folder / stage)
            why = "" if sitting.code == -signal.SIGKILL else trial.told(sitting)
            trial.note(name, sitting, why, stage)
    sitting = trial.sit(fault={"match": "rename after retrain/model$", "action": "kill"})
    _must_tell(trial)
    for path in (trial.folder / "supernet").glob("ckpt-*.data-*"):
        cut(path)
    trial.note("all checkpoints of a finished stage torn", sitting, stage="supernet")
    trial.finish(reference)
    _must_tell(trial)
    return []


def _must_tell(trial: Trial) -> None:
    """The sitting behind a damage says that it found it."""
    log = trial.last.log if trial.last else ""
    if trial.events and "is damaged" not in log and "was lost" not in log:
        trial.events[-1] |= {"survived": False, "why": f"nothing was said: {log[-300:]}"}


# Moments at which a disk fills up: the model (HDF5), both exports, the report.
FILLED = (
    r"folder after retrain/\.model\.",
    r"folder after export/\.model\.tflite\.",
    r"folder after export/\.saved_model\.",
    r"create after report/\.summary\.json\.",
)


def full_disk(trial: Trial, reference: pathlib.Path) -> list[str]:
    """A file system that is too small, then larger, until the run fits."""
    trial.folder.mkdir(parents=True)
    sizes = (16, 120, 300, 480, 600, 760)  # KiB; the last ones end the retraining
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={sizes[0]}k", "tmpfs", str(trial.folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        for limit in (1, 4, 12, 60, 92, 150, 180, 260):
            trial.refuse("full disk", file_limit=limit << 10)
        trial.finish(reference)
        return ["full disk: a limit on the size of a file (EFBIG), for nothing could be mounted"]
    try:
        for size in sizes:
            _remount(trial.folder, f"size={size}k")
            trial.refuse("full disk")
        _remount(trial.folder, "size=64m")
        for match in FILLED:
            trial.refuse("full disk", fault={"match": match, "action": "full"})
            (trial.folder / FILLER).unlink(missing_ok=True)
        trial.finish(reference)
    finally:
        subprocess.run(["umount", str(trial.folder)], check=True)
    steps = ", ".join(map(str, sizes))
    return [
        f"full disk: a tmpfs of {steps} KiB, one after the other (ENOSPC), then a larger one that is "
        "filled up when the model, each of the two exports and the summary begin to be written"
    ]


def _remount(folder: pathlib.Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


FOLDERS = ("supernet", "shrink", "search", "retrain", "export", "report")


def unwritable(trial: Trial, reference: pathlib.Path) -> list[str]:
    """Folders that nothing can be made in, one stage after the other."""
    ways = {"the attribute 'immutable'": (["chattr", "+i"], ["chattr", "-i"])}
    ways["permission bits"] = (["chmod", "555"], ["chmod", "755"])
    trial.folder.mkdir(parents=True)
    for name, (lock, unlock) in ways.items():
        way = name
        shut = subprocess.run([*lock, str(trial.folder)], capture_output=True, check=False)
        try:
            (trial.folder / "probe").touch()
            (trial.folder / "probe").unlink()
            works = False
        except OSError:
            works = not shut.returncode
        if works:
            break
        subprocess.run([*unlock, str(trial.folder)], capture_output=True, check=False)
    else:
        return ["unwritable folder: not tried, for this user may write everywhere"]
    for name in ("", *FOLDERS):
        folder = trial.folder / name
        if name == "supernet":  # a new run's folder must hold nothing
            trial.sit(fault={"match": "rename after run.json", "action": "kill"})
        if name:
            folder.mkdir(exist_ok=True)
            subprocess.run([*lock, str(folder)], check=True)
        try:
            trial.refuse("unwritable folder", name or "start")
        finally:
            subprocess.run([*unlock, str(folder)], check=True)
    trial.finish(reference)
    return [f"unwritable folder: by {way}"]


def blocked(trial: Trial, reference: pathlib.Path) -> list[str]:
    """A file that lies where a stage wants its folder."""
    trial.folder.mkdir(parents=True)
    for name in FOLDERS:
        path = trial.folder / name
        if name == "supernet":  # a new run's folder must hold nothing
            trial.sit(fault={"match": "rename after run.json", "action": "kill"})
        path.write_text("in the way\n")
        trial.refuse("a file in place of a folder", name)
        path.unlink()
    trial.finish(reference)
    return []


def second_process(trial: Trial, reference: pathlib.Path) -> list[str]:
    """Two processes on one folder: the second is refused, the first is not disturbed."""
    from tiny_run import start_train

    running = trial.nursery.start(trial._flags)
    while "━━ Supernet" not in (running.log.read_text() if running.log.exists() else ""):
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGSTOP)  # so that it cannot end first
    try:
        process = start_train(*trial._flags)
        _, text = process.communicate()
    finally:
        os.kill(running.pid, signal.SIGCONT)
    first = running.finish()
    refused = (
        process.returncode == 2 and f"in use by another process (process {running.pid})" in text
    )
    trial.note("a second process", first, "" if refused else text[-500:], "supernet")
    trial.finish(reference)
    return []
