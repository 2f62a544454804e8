"""The long trials' command, tables and comparison; short trials are in test_resume."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from soak import crashes, parsers, sittings
from soak.__main__ import parse
from soak.tables import count_rows, merge_table

from neas_tf.common import paths


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tests.soak", *arguments],
        capture_output=True,
        text=True,
        cwd=paths.project_file(),
        check=False,
    )


@pytest.mark.parametrize("flag", ["--help", "--list"])
def test_help_comes_without_tensorflow(flag):
    done = command(flag)
    loaded = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert done.returncode == 0 and "crashes" in done.stdout
    assert "argparse" in loaded and "tensorflow" not in loaded


def test_unknown_parts(capsys):
    with pytest.raises(SystemExit):
        parse(["--parts=crashs"])
    assert "received ['crashs'], expected crashes" in capsys.readouterr().err


def test_rows_and_table():
    event = {"fault": "SIGKILL", "stage": "search", "survived": True, "seconds": 2.0}
    rows = count_rows(
        [event, {**event, "survived": False, "why": "it hung"}, {**event, "stage": "a"}]
    )
    assert rows == [
        {"fault": "SIGKILL", "stage": "search", "tried": 2, "survived": 1, "seconds": 4.0,
         "details": ["it hung"]},
        {"fault": "SIGKILL", "stage": "a", "tried": 1, "survived": 1, "seconds": 2.0, "details": []},
    ]  # fmt: skip
    result = {"date": "d", "machine": "m", "parts": {"p": {"rows": rows, "notes": ["n"]}}}
    table = merge_table(result)
    assert "| p | SIGKILL | search | 2 | 1 |" in table
    assert "not survived** p: SIGKILL, search: it hung" in table and "- p: n" in table


def write_results(folder, weight: float):
    for name in sittings.EQUAL_BYTES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    with h5py.File(folder / "retrain/model/weights.weights.h5", "w") as file:
        file["layer/weight"] = np.float32([1.0, weight])


def test_results_are_compared(tmp_path):
    for name, weight in (("a", 2.0), ("b", 2.0), ("c", 2.001)):
        write_results(tmp_path / name, weight)
    assert sittings.unlike(tmp_path / "a", tmp_path / "b") == []
    (fault,) = sittings.unlike(tmp_path / "a", tmp_path / "c")
    assert fault.startswith("a weight differs by 0.001")
    (tmp_path / "b/search/history.jsonl").write_text("other")
    (tmp_path / "b/search/best.json").unlink()
    assert sittings.unlike(tmp_path / "a", tmp_path / "b") == [
        "search/history.jsonl differs",
        "search/best.json is missing",
    ]


def test_results_of_chains(tmp_path):
    path = tmp_path / "results.jsonl"
    assert crashes.read_results(path) == {}
    chains = {"chosen": 3, "random 0": 2, "random 7": 4}
    entries = [{"chain": name, "events": [{}] * count} for name, count in chains.items()]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    done = crashes.read_results(path)
    assert list(done) == list(chains) and crashes.random_points(done) == 6


def test_damages(tmp_path):
    for number in (5, 20):
        (tmp_path / f"ckpt-{number}.index").write_bytes(bytes(range(10)))
    path = crashes.newest(tmp_path, ".index")
    assert path.name == "ckpt-20.index"
    crashes.flip(path)
    assert path.read_bytes() == bytes([0, 1, 2, 3, 4, 250, 6, 7, 8, 9])
    crashes.cut(path)
    assert path.read_bytes() == bytes(range(5))
    crashes.blank(path)
    assert path.read_bytes() == bytes(5)


def test_parsers_are_read_by_libfuzzer(tmp_path):
    pytest.importorskip("atheris", reason="atheris is not installed")
    report = parsers.run(60.0, 1, 500, ["normalisation"])
    (row,) = report["rows"]
    assert row["tried"] == row["survived"] == report["tried"] == 500
    assert row["details"]["accepted"] and row["details"]["refused"] and not row["details"]["faults"]


def test_no_parsers_without_atheris(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(parsers, "have_atheris", lambda: False)
    assert parsers.run_part(tmp_path, 1.0) == {"rows": [], "notes": [parsers.MISSING]}
    with pytest.raises(SystemExit):
        parsers.main([])
    assert "atheris is not installed" in capsys.readouterr().err
