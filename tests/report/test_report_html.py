"""report.html: what it holds, that texts do no harm, comparison and watching. No browser needed."""

import base64
import hashlib
import json
import os
import pathlib
import re
import shutil
import stat

import numpy as np
import pytest
import synthetic_run
import vl_convert
from report_pages import Page

from neas_tf.common.errors import NeasError
from neas_tf.common.paths import project_file
from neas_tf.cost.cost_table import CostTable
from neas_tf.report import (
    Candidate,
    Table,
    diagram,
    make_page,
    read_run,
    style,
    write_page,
    write_report,
)
from neas_tf.report.__main__ import main
from neas_tf.report.charts import thinned
from neas_tf.report.page import SCRIPTS, packed
from neas_tf.report.parts.run_data import run_data
from neas_tf.space.architecture import Architecture

EVIL = '</script><img src=x onerror="document.title=1"><!--<script>'


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_page_holds_everything_itself(toy):
    page = Page(make_page([read_run(toy)]))
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == 3 and tags.count("style") == 1 and tags.count("main") == 1
    for tag, attributes in page.elements:
        assert "style" not in attributes, tag
        assert attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attributes.get("href", "#").startswith("#"), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    (policy,) = [a["content"] for t, a in page.elements if "http-equiv" in a]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    scripts = page.texts["script"]
    vega, own = re.split(r'(?="use strict";\n// What is chosen)', scripts)
    assert digest(own) in policy and digest(vega) in policy
    assert digest(page.texts["style"]) in policy
    assert "url(" not in page.texts["style"] and "@import" not in page.texts["style"]
    viewport = [a["content"] for t, a in page.elements if a.get("name") == "viewport"]
    assert viewport == ["width=device-width, initial-scale=1"]
    assert page.texts["title"] == "NEAS: toy"
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(set(ids)) == len(ids)


def test_the_page_of_a_whole_run_is_small(toy):
    assert len(make_page([read_run(toy)])) < 1_500_000


def test_scripts_make_elements_from_text_only():
    folder = pathlib.Path(project_file("neas_tf", "report", "html"))
    assert sorted(SCRIPTS) == sorted(path.name for path in folder.glob("*.js"))
    for path in folder.iterdir():
        text = path.read_text("utf-8")
        words = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch\(|XMLHttp"
        assert not re.search(words + r"|https?://", text), path.name
        assert len(text.splitlines()) < 400


def test_the_data_are_those_of_the_files(toy):
    page = Page(make_page([read_run(toy)]))
    data, run = page.data, run_data(read_run(toy))
    assert data["format"] == "neas-report-page/2" and data["reload"] is None
    lines = [json.loads(x) for x in (toy / "search/history.jsonl").read_text().splitlines()]
    search = data["runs"][0]["search"]
    rows = search["rows"]
    assert search["total"] == len(lines)
    for name, of_the_file in (("key", "key"), ("a", "accuracy"), ("params", "params")):
        assert [row[name] for row in rows] == [line[of_the_file] for line in lines]
    paths = [[round(a, 5) for a in line["path_accuracies"]] for line in lines]
    assert [row["p"] for row in rows] == paths
    front = [i for i, row in enumerate(rows) if "macs" in row["f"]]
    for i in front:
        beaten = [
            x["macs"] <= lines[i]["macs"] and x["accuracy"] > lines[i]["accuracy"] for x in lines
        ]
        assert not any(beaten)
    (winner,) = [row["n"] for row in rows if "w" in row]
    assert winner == search["winner"] == max(lines, key=lambda x: x["accuracy"])["candidate"]
    assert [s["index"] for s in run["shrinks"]] == [0, 1, 2, 3]
    assert [re.findall(r"(\d+) combinations", s["label"]) for s in run["shrinks"]] == [
        ["36"], ["32"], ["28"], ["24"]
    ]  # fmt: skip
    assert next(iter(run["shrinks"][1]["similarity"])) == "4"
    assert sum(fate == "dropped" for *_, fate in run["shrinks"][2]["scores"]) == 4
    last = json.loads((toy / "retrain/metrics.jsonl").read_text().splitlines()[-1])
    logged = [r for rows in data["charts"]["r0-retrain-loss"]["datasets"].values() for r in rows]
    assert logged[-1]["x"] == last["step"] and logged[-1]["r"] == float(f"{last['loss']:.5g}")
    assert run["confusion"]["class_names"][3] == "digit 3" in page.texts["td"]
    assert run["figures"]["ensemble"] == 0.9585


def test_costs_of_the_layers_add_up(toy):
    """What the diagram sums: the trunk, a shared layer once, the rest once a path."""
    run = read_run(toy)
    costs = run_data(run)["space"]
    for candidate in run.candidates[::5]:
        architecture = candidate.architecture
        total = costs["trunk"] + architecture.num_paths * costs["head"]
        for i, row in enumerate(zip(*architecture.paths, strict=True)):
            for name in row[:1] if i < architecture.split_point else row:
                total += costs["macs"][i][costs["operators"].index(name)]
        assert total == CostTable(run.space).cost(architecture).macs == candidate.macs


def test_texts_cannot_leave_the_data_block(copy, tmp_path):
    folder = tmp_path / "</title><img src=x onerror=alert(1)> & co"
    os.makedirs(folder.parent, exist_ok=True)
    shutil.copytree(copy, folder)
    confusion = json.loads((folder / "retrain/confusion.json").read_text())
    confusion["class_names"][0] = EVIL
    synthetic_run.write_json(folder / "retrain/confusion.json", confusion)
    line = json.loads((folder / "search/history.jsonl").read_text().splitlines()[0])
    (folder / "search/history.jsonl").write_text(json.dumps({**line, "origin": EVIL}) + "\n")
    plain, page = Page(make_page([read_run(copy)])), Page(make_page([read_run(folder)]))
    tags = {tag for tag, _ in page.elements}
    assert tags <= {tag for tag, _ in plain.elements}
    assert [t for t, _ in page.elements].count("img") == [t for t, _ in plain.elements].count("img")
    assert [t for t, _ in page.elements].count("script") == 3
    assert EVIL in page.texts["td"] and EVIL in json.dumps(page.data["charts"], ensure_ascii=False).replace('\\"', '"')  # fmt: skip
    assert page.data["runs"][0]["search"]["rows"][0]["o"] == EVIL
    assert page.data["runs"][0]["name"] == page.texts["title"].removeprefix("NEAS: ")
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed({"a": EVIL + "\u2028\ud800"}))


def test_same_folder_same_bytes(toy, copy):
    assert make_page([read_run(toy)]) == make_page([read_run(copy)])


def test_report_writes_the_page_atomically(copy, monkeypatch):
    report = write_report(copy)
    path = copy / "report" / "report.html"
    assert path in report.written and Page(path.read_bytes()).data["runs"][0]["name"] == "toy"
    assert stat.S_IMODE(path.stat().st_mode) & 0o444 == 0o444
    before = path.read_bytes()
    (copy / "timing.json").unlink()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            write_page(path, [read_run(copy)])
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*"))
    assert write_page(path, [read_run(copy)]) and path.read_bytes() != before
    assert not write_page(path, [read_run(copy)]), "nothing new, nothing written"


def test_bad_folders_are_refused_and_nothing_is_written(copy, tmp_path, capsys):
    places = [f"--model_dir={copy}", f"--model_dir={tmp_path / 'nowhere'}"]
    assert main([*places, f"--output_dir={tmp_path / 'out'}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("neas_tf.report: model_dir: received") and "an existing folder" in told
    assert main([f"--model_dir={tmp_path / 'nowhere'}", "--watch"]) == 2
    assert main([f"--model_dir={copy}"] * 2) == 2
    assert "output_dir: received None" in capsys.readouterr().err
    assert main([f"--model_dir={copy}", "--watch", "--interval=0"]) == 2
    assert "interval: received 0.0, expected" in capsys.readouterr().err
    with pytest.raises(NeasError, match="at least one run, or tables"):
        make_page([])
    assert not (tmp_path / "out").exists() and not (copy / "report").exists()
    assert not (tmp_path / "nowhere").exists()


def test_comparison_of_two_runs(toy, tmp_path, capsys):
    other = synthetic_run.write_run(tmp_path / "other", num_paths=3, seed=1)
    out = tmp_path / "out"
    assert main([f"--model_dir={toy}", f"--model_dir={other}", f"--output_dir={out}"]) == 0
    assert capsys.readouterr().out == f"written: {out}/report.html\n"
    assert [path.name for path in out.iterdir()] == ["report.html"]
    page = Page((out / "report.html").read_bytes())
    assert page.texts["title"] == "NEAS: toy, other"
    figures = [run["figures"] for run in page.data["runs"]]
    assert [f["num_paths"] for f in figures] == [2, 3]
    assert figures[1]["macs"] == read_run(other).cost()["macs"]
    assert not (toy / "report").exists()


def test_tables_of_a_study(toy):
    table = Table("Seeds", ("seed", "accuracy"), (("0", 0.91), ("1", float("nan"))), "A note.")
    page = Page(make_page([read_run(toy)], title="Three seeds", tables=[table]))
    assert page.texts["title"] == "Three seeds"
    assert page.texts["td"].startswith("00.911–"), "the table, with a dash for no number"
    alone = Page(make_page([], title="A study", tables=[table], notes=["It holds."]))
    assert alone.data["runs"] == [] and alone.texts["p"].endswith("It holds.A note.")
    with pytest.raises(NeasError, match="2 cells"):
        Table("Seeds", ("seed", "accuracy"), (("0",),))


def png(width=2, height=2):
    return style.small(vl_convert.svg_to_png(diagram.svg(width, height, "")))


def test_a_study_begins_with_its_verdict_and_one_picture():
    tables = [Table("First", ("a",), ((1,),)), Table("Second", ("a",), ((2,),))]
    pictures = {"How it came out": png(20, 8), "Something else": png()}
    text = make_page(
        [], "A study", tables, ["It holds.", "Nearly."], pictures, ["on 2 cores"]
    ).decode()
    order = ("Verdict</h2>", "It holds.", "How it came out", "Nearly.", "First</h2>", "Second</h2>",
             "Something else</h2>", "How it was done</h2>", "on 2 cores")  # fmt: skip
    places = [
        text.index(words, text.index("<main")) if i != 4 else text.index(words)
        for i, words in enumerate(order)
    ]
    assert places == sorted(places)
    page = Page(text.encode())
    links = [a["href"] for t, a in page.elements if t == "a"]
    ids = {a.get("id") for _, a in page.elements}
    assert len(links) == 5 and {link[1:] for link in links} <= ids
    (first, _) = [a for t, a in page.elements if t == "img"]
    assert first["alt"] == "How it came out" and first["width"] == "10", (
        "half of what it is drawn at"
    )


def test_the_python_of_the_page_on_reports(tmp_path, monkeypatch):
    text = pathlib.Path(project_file("docs", "report.md")).read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "docs").symlink_to(project_file("docs"))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    page = Page((tmp_path / "compared.html").read_bytes())
    assert [run["name"] for run in page.data["runs"]] == ["cifar10_cpu", "cifar10_mobile"]
    assert page.texts["title"] == "Two runs" and "20 M MACs" in page.texts["td"]


def test_partial_and_damaged_folders_still_give_a_page(copy, tmp_path):
    (tmp_path / "empty").mkdir()
    run = run_data(read_run(tmp_path / "empty"))
    assert run["search"] is None and run["shrinks"] == [] and run["confusion"] is None
    assert [stage["state"] for stage in run["stages"]] == ["none"] * 4
    assert "search/history.jsonl" in Page(make_page([read_run(tmp_path / "empty")])).texts["li"]
    for path in [p for p in copy.rglob("*") if p.suffix in (".json", ".jsonl", ".yaml")]:
        path.write_bytes(b"\x00{nonsense")
    assert "confusion.json" in Page(make_page([read_run(copy)])).texts["li"]


def test_a_published_folder_reads_as_a_run():
    folder = pathlib.Path(project_file("docs", "results", "cifar10_cpu"))
    run = read_run(folder)
    assert run.problems == [] and run.missing == []
    data = run_data(run)
    history = (folder / "history.jsonl").read_text().splitlines()
    results = json.loads((folder / "results.json").read_text())
    assert data["search"]["total"] == len(history)
    assert data["figures"]["ensemble"] == results["ensemble_accuracy"]
    winner = next(row["key"] for row in data["search"]["rows"] if "w" in row)
    assert data["architecture"] == results["architecture"] == winner
    assert set(data["training"]) == {"supernet", "retrain"}
    # The start, and each shrink the run has written.
    assert len(data["shrinks"]) == 1 + len(list((folder / "shrink").glob("shrink_*.json")))
    assert run.timing == json.loads((folder / "summary.json").read_text())["wall_time"]["stages"]
    assert [stage["state"] for stage in data["stages"]] == ["done"] * 4
    # Made by python -m neas_tf.report --model_dir=docs/results/cifar10_cpu --output_dir=…
    published = Page((folder / "report.html").read_bytes())
    assert published.data == Page(make_page([run])).data


def test_many_candidates_are_thinned_and_it_is_said():
    rng = np.random.default_rng(0)
    accuracy = rng.random(5000)
    macs = rng.integers(1, 1 << 30, size=5000)
    keys = [f"s1:k3e{i % 70 + 1}|k3e{i // 70 + 1}" for i in range(5000)]
    rows = [
        Candidate(i, 0, "random", Architecture.from_key(key), float(a), (), {"macs": int(m)})
        for i, (key, a, m) in enumerate(zip(keys, accuracy, macs, strict=True))
    ]
    shown = thinned(rows, keys[17], 200)
    assert len(shown) == 200 and keys[17] in {c.architecture.key for c in shown}
    best = max(rows, key=lambda c: c.accuracy)
    cheapest = min(rows, key=lambda c: c.macs)
    assert best in shown and cheapest in shown
    numbers = [c.number for c in shown]
    assert numbers == sorted(numbers) and min(numbers) < 100 and max(numbers) > 4900
    assert thinned(rows, None, 5000) == tuple(rows)


def test_a_thinned_page_says_how_many_there_were(toy):
    run = read_run(toy)
    search = run_data(run, max_candidates=20)["search"]
    assert search["total"] == len(run.candidates) > len(search["rows"])
    few, whole = (
        {row["key"] for row in found["rows"] if "macs" in row["f"]}
        for found in (search, run_data(run)["search"])
    )
    assert few == whole
    shown = Page(make_page([run], max_candidates=20)).texts["p"]
    assert f"{len(search['rows'])} of them are shown" in shown


def test_long_logs_keep_their_last_line(copy):
    lines = [{"step": i + 1, "loss": 1 / (i + 1)} for i in range(5003)]
    synthetic_run.write_lines(copy / "supernet/metrics.jsonl", lines)
    found = run_data(read_run(copy))["training"]["supernet"]
    marks, drawn = sorted(found["charts"]["loss"]["datasets"].values(), key=len)
    assert found["lines"] == 5003 and len(marks) == 3
    assert len(drawn) <= 200 and drawn[-1]["x"] == 5003
