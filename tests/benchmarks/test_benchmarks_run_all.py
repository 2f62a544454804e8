"""Worker processes, the table of targets, and the program that runs all benchmarks."""

import json
import subprocess
import sys

import pytest

from benchmarks import cost_and_sampling, run_all, scaling, scoring
from benchmarks.run_all import Program, merged
from benchmarks.targets import markdown, target
from benchmarks.workers import Worker, workers
from neas_tf.common.errors import NeasError
from neas_tf.common.paths import project_file
from neas_tf.cost.cost_table import CostTable
from neas_tf.operators import Operator
from neas_tf.space.search_space import SearchSpace

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
        Program(
            "cost",
            "benchmarks.cost_and_sampling",
            tuple(cost_and_sampling.targets()),
            QUICK,
            ("--bad",),
        ),
        Program("missing", "benchmarks.no_such", expected("m")),
        Program("failing", ECHO, expected("f"), ("fly",)),
        Program("chatter", ECHO, expected("c"), ("chatter",)),
        Program("endless", ECHO, expected("e"), ("sleep",)),
    ]
    arguments = ["--quick", "--timeout=30", f"--output={tmp_path / 'all.json'}"]
    assert run_all.main([*arguments, "--only=cost,missing,failing,chatter"], programs) == 0
    table = capsys.readouterr().out
    report = json.loads((tmp_path / "all.json").read_text())
    by_key = {row["key"]: row for row in report["targets"]}
    assert list(by_key) == ["cost", "sample", "m", "f", "c"]
    assert by_key["cost"]["value"] > 0 and by_key["sample"]["value"] > 0
    assert report["reports"]["cost"]["count"] == 500
    assert "is not there" in by_key["m"]["reason"]
    assert by_key["f"]["reason"] == "ended with 1: cannot fly"
    assert by_key["c"]["reason"] == "printed no JSON"
    assert "| row f | ≥ 1 | – | not measured: ended with 1: cannot fly |" in table
    assert set(report["seconds"]) == {"cost", "missing", "failing", "chatter"}

    # What was measured before need not be again.
    again = ["--only=failing", f"--reuse={tmp_path / 'all.json'}"]
    assert run_all.main([*again, f"--output={tmp_path / 'again.json'}"], programs) == 0
    other = json.loads((tmp_path / "again.json").read_text())
    assert other["reports"] == report["reports"] and list(other["failures"]) == ["failing"]
    assert [row["key"] for row in other["targets"]] == ["cost", "sample", "f"]
    (tmp_path / "other.json").write_text('{"format": "none"}')
    assert run_all.main(["--only=cost", f"--reuse={tmp_path / 'other.json'}"], programs) == 2

    path = tmp_path / "table.md"
    arguments = ["--quick", "--timeout=1", "--only=endless", f"--markdown={path}"]
    assert run_all.main(arguments, programs) == 0
    assert "took more than 1 s" in path.read_text()


QUICK = ("--count=500", "--samples=3", "--repeats=1")


@pytest.mark.parametrize(
    ("main", "arguments", "text"),
    [
        (run_all.main, ["--only=walking"], "--only"),
        (run_all.main, ["--timeout=-1", "--only=scoring"], "--timeout"),
        (cost_and_sampling.main, ["--count=0"], "--count"),
        (cost_and_sampling.main, ["--max_macs=1000"], "max_macs"),
        (scaling.main, ["--batch_size=0"], "--batch_size"),
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
    for key in (
        "k2_first_step_cpu",
        "k2_first_step_wall",
        "k2_memory",
        "cost",
        "sample",
        "scoring",
        "retraining",
    ):
        assert key in keys
    assert sum(key.startswith("evaluation_") for key in keys) == 4
    assert sum(key.startswith("input_") for key in keys) == 2


def test_samples_over_the_budget_are_no_measurement():
    rows = cost_and_sampling.targets(3.0, None)
    assert rows[1]["met"] is None and "over the budget" in rows[1]["reason"]


def test_scoring_reports_its_target(monkeypatch, capsys):
    words = ["scoring", "--samples=20", "--layers=3", "--operators=4", "--repeats=1"]
    monkeypatch.setattr(sys, "argv", words)
    scoring.main()
    report = json.loads(capsys.readouterr().out)
    (row,) = report["targets"]
    assert row["value"] == max(result["seconds"] for result in report["results"])


def test_scaling_counts_what_the_cost_table_counts():
    space = SearchSpace()
    amounts = scaling.network_amounts(space, 2, draws=50)
    table = CostTable(space)
    assert amounts["supernet_params"] == table.operators["params"].sum() + table.fixed("params", 2)
    assert amounts["params"] < amounts["supernet_params"] and amounts["maps"] <= amounts["widest"]
    # k3e4 of layer 2 (24 channels at 56²): 3 maps of 96 channels twice, the gated one, 2 of 24.
    layer = space.layers[1]
    assert scaling.operator_maps(layer, Operator.parse("k3e4")) == 56 * 56 * (96 * 7 + 24 * 2)
    assert scaling.operator_maps(layer, Operator.parse("skip")) == 0


def test_scaling_by_hand():
    machine = scaling.Machine("two", 2, 1e12, 1e9, 1e9, 1e9, 2, 4, "made up")
    amounts = {"macs": 1e6, "params": 1e5, "supernet_params": 1e6, "maps": 1e4, "widest": 2e4}
    found = scaling.estimate(machine, amounts, batch_size=100, images_per_core=1e9)
    seconds = found["seconds"]
    assert seconds["arithmetic"] == pytest.approx(6 * 1e6 * 50 / 1e12)
    assert seconds["maps"] == pytest.approx(5 * 1e4 * 50 * 2 / 1e9)
    assert seconds["reduce_all"] == pytest.approx(4e6 / 1e9)  # 2 (n - 1) / n is 1
    assert seconds["reduce_drawn"] == pytest.approx(seconds["reduce_all"] / 10)
    assert found["limit"] == "update_all" and found["memory_maps"] == 50 * 2 * 2e4
    fed = scaling.estimate(machine, amounts, batch_size=100, images_per_core=1.0)
    assert fed["limit"] == "input" and fed["step_seconds"] == pytest.approx(100 / 4)
    assert fed["training_device_days_fed"] == pytest.approx(found["training_device_days"])


def test_importing_the_programs_loads_neither_library():
    names = "run_all, supernet_step, supernet_worker, retraining_step, input_pipeline, workers"
    code = f"import sys; from benchmarks import {names}; print(sorted({{'tensorflow', 'torch'}} & {{*sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project_file(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_rows_of_candidate_evaluation_are_read_from_its_figures():
    def layers(trunk, paths):
        return {"layers": {"shared_trunk/prefix_tree": trunk, "full_paths/prefix_tree": paths}}

    report = {
        "layer_evaluations": {"a": layers(1.6, 2.5), "b": layers(1.4, 2.9)},
        "time": {"rounds": 3, "a": {"cpu_time/macs": 0.9}, "b": {"cpu_time/macs": 0.8}},
        "racing": {"results": "a real run", "validation_macs_saved": 2.25},
    }
    values = [row["value"] for row in run_all.evaluation_rows(report)]
    assert values == [1.4, 2.5, 0.8, 2.25]
    report["racing"]["results"] = "made up"
    last = run_all.evaluation_rows(report)[-1]
    assert last["value"] is None and "2.25" in last["reason"]
    assert [row["value"] for row in run_all.evaluation_rows({})] == [None] * 4


def test_the_page_about_scaling_holds_what_the_program_prints(capsys):
    assert scaling.main([]) == 0
    with open(project_file("docs", "scaling.md"), encoding="utf-8") as stream:
        assert capsys.readouterr().out.strip() in stream.read()
    assert scaling.main(["--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["machines"]
    assert [row["machine"] for row in rows] == [m.name for m in scaling.MACHINES]
