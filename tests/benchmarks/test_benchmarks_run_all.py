"""Worker processes, the table of targets, and the program that runs all benchmarks."""

import json
import subprocess
import sys

import pytest

from benchmarks import racing, run_all
from benchmarks.run_all import Program, merged
from benchmarks.targets import markdown, target
from benchmarks.workers import Worker, workers
from neas_tf.common.errors import NeasError
from neas_tf.common.paths import project_file

ECHO = "tests.echo_worker"


def test_workers_answer_in_turn_and_time_themselves():
    with workers({"a": (ECHO, ()), "b": (ECHO, ())}, threads=3) as found:
        for text in ("one", "zwölf\n"):
            assert [w.call("echo", x=text).value for w in found.values()] == [[text, "3"]] * 2
        turn = found["a"].call("busy", seconds=0.05)  # what it prints is no answer
        assert turn.value is None and turn.cpu >= 0.05 and turn.wall > 0
        with pytest.raises(NeasError, match="ValueError: too bad"):
            found["a"].call("fail", text="too bad")
        assert found["a"].call("echo", x=1).value == [1, "3"]  # it goes on behind an error


def test_a_worker_that_dies_says_why():
    worker = Worker(ECHO)
    with pytest.raises(NeasError, match="last words"):
        worker.call("die")
    worker.close()
    worker.close()


def test_targets_are_met_or_not_or_say_why_they_were_not_measured():
    rows = [
        target("a", "speed", 2.0, at_least=2.0, unit="×"),
        target("b", "time", 1.5, at_most=1.0, unit="s"),
        target("c", "size", None, at_most=3.0, reason="no scales"),
    ]
    assert [row["met"] for row in rows] == [True, False, None]
    lines = markdown(rows).splitlines()[2:]
    assert lines == [
        "| speed | ≥ 2 × | 2 × | met |",
        "| time | ≤ 1 s | 1.5 s | **not met** |",
        "| size | ≤ 3 | – | not measured: no scales |",
    ]


def test_rows_of_a_report_replace_the_expected_ones():
    expected = [target(key, key, None, at_least=1.0) for key in "ab"]
    found = [target(key, key, 2.0, at_least=1.0) for key in "bc"]
    rows = merged(expected, found, "gone")
    assert [(row["key"], row["value"], row.get("reason")) for row in rows] == [
        ("a", None, "gone"),
        ("b", 2.0, None),
        ("c", 2.0, None),
    ]


def test_programs_that_fail_are_rows_with_the_reason(tmp_path, capsys):
    def expected(key):
        return (target(key, f"row {key}", None, at_least=1.0),)

    programs = [
        Program("race", "benchmarks.racing", tuple(racing.targets()), QUICK, ("--bad",)),
        Program("missing", "benchmarks.no_such", expected("m")),
        Program("failing", ECHO, expected("f"), ("fly",)),
        Program("chatter", ECHO, expected("c"), ("chatter",)),
        Program("endless", ECHO, expected("e"), ("sleep",)),
    ]
    arguments = ["--quick", "--timeout=30", f"--output={tmp_path / 'all.json'}"]
    assert run_all.main([*arguments, "--only=race,missing,failing,chatter"], programs) == 0
    table = capsys.readouterr().out
    report = json.loads((tmp_path / "all.json").read_text())
    by_key = {row["key"]: row for row in report["targets"]}
    assert list(by_key) == ["evaluation_racing", "m", "f", "c"]
    assert "only on made-up results" in by_key["evaluation_racing"]["reason"]
    assert report["reports"]["race"]["population"] == 8
    assert "is not there" in by_key["m"]["reason"]
    assert by_key["f"]["reason"] == "ended with 1: cannot fly"
    assert by_key["c"]["reason"] == "printed no JSON"
    assert "| row f | ≥ 1 | – | not measured: ended with 1: cannot fly |" in table
    assert set(report["seconds"]) == {"race", "missing", "failing", "chatter"}

    # What was measured before need not be again.
    again = ["--only=failing", f"--reuse={tmp_path / 'all.json'}"]
    assert run_all.main([*again, f"--output={tmp_path / 'again.json'}"], programs) == 0
    other = json.loads((tmp_path / "again.json").read_text())
    assert other["reports"] == report["reports"] and list(other["failures"]) == ["failing"]
    assert [row["key"] for row in other["targets"]] == ["evaluation_racing", "f"]
    (tmp_path / "other.json").write_text('{"format": "none"}')
    assert run_all.main(["--only=race", f"--reuse={tmp_path / 'other.json'}"], programs) == 2

    path = tmp_path / "table.md"
    arguments = ["--quick", "--timeout=1", "--only=endless", f"--markdown={path}"]
    assert run_all.main(arguments, programs) == 0
    assert "took more than 1 s" in path.read_text()


QUICK = ("--searches=1", "--population=8", "--generations=2")


@pytest.mark.parametrize(
    ("main", "arguments", "text"),
    [
        (run_all.main, ["--only=walking"], "--only"),
        (run_all.main, ["--timeout=-1", "--only=racing"], "--timeout"),
    ],
)
def test_bad_input_ends_with_2(main, arguments, text, capsys):
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


def test_every_target_has_one_row():
    rows = [row for program in run_all.PROGRAMS for row in program.expected]
    keys = [row["key"] for row in rows]
    assert len(set(keys)) == len(keys)
    assert all(row["value"] is None for row in rows)
    for key in ("k1_torch", "k2_torch_channels_last", "k2_alone", "k2_limit", "k2_bfloat16"):
        assert key in keys
    for key in ("k2_first_step_cpu", "k2_first_step_wall", "k2_memory", "retraining"):
        assert key in keys
    assert "evaluation_racing" in keys
    assert sum(key.startswith("input_") for key in keys) == 2


def test_importing_the_programs_loads_neither_library():
    names = "run_all, supernet_step, supernet_worker, retraining_step, input_pipeline, workers"
    code = f"import sys; from benchmarks import {names}; print(sorted({{'tensorflow', 'torch'}} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project_file(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
