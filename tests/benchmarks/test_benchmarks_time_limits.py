"""benchmarks.time_limits: its rows, its picture and what it refuses; nothing is trained."""

import json

import pytest

from benchmarks import time_limits

PLAN = {
    "format": "neas-time-plan/1",
    "limit": 300.0,
    "used": 291.2,
    "stages": {
        "supernet": {"segments": [[5, 317], [63, 400]]},
        "search": {"begin": 108.4},
        "retrain": {"init": "supernet", "segments": [[5, 801], [553, 900]]},
    },
}
SUMMARY = {
    "accuracy": {"ensemble": 0.63712, "best_path": 0.6255},
    "architecture": {"key": "s2:skip.k5e1|k3e1|k5e1"},
    "cost": {"macs": 42_048},
    "search": {"candidates": 24, "generations": 3},
    "wall_time": {"stages": {"supernet": 72.7}},
}


def write(folder, plan, summary):
    """What the program reads of a run that has ended."""
    record = {"run": {"images": {"train": 10_000, "supernet": 8_000}}}
    batches = {"supernet": {"batch_size": 128}, "retrain": {"batch_size": 64}}
    for name, value in {
        "time_plan.json": plan,
        "report/summary.json": summary,
        "run.json": record,
        "params.yaml": batches,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    (folder.parent / f"{folder.name}_load.json").write_text('{"before": 0.1, "after": 2.0}')


def test_rows_and_picture_of_runs_that_have_ended(tmp_path):
    write(tmp_path / "5min", PLAN, SUMMARY)
    late = {**PLAN, "limit": 600.0, "used": 700.0}
    write(tmp_path / "10min", late, SUMMARY | {"shrinking": {"shrinks": 2}})
    flags = [f"--work={tmp_path}", "--data_dir=anywhere", "--limits=5min,10min"]
    output, plot = tmp_path / "runs.json", tmp_path / "accuracy.png"
    assert time_limits.main([*flags, f"--output={output}", f"--plot={plot}"]) == 0
    first, second = json.loads(output.read_text())["runs"]
    # 400 steps of 128 over 8,000 images, 900 of 64 over 10,000.
    assert first["epochs"] == {"supernet": 6.4, "retrain": 5.76}
    assert (first["kept"], second["kept"]) == (True, False)
    assert (first["shrinks"], second["shrinks"]) == (0, 2)
    assert (first["accuracy"], first["retrain_init"]) == (0.63712, "supernet")
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_run_that_fails_is_one_sentence(tmp_path, capfd):
    assert time_limits.main([f"--work={tmp_path}", "--data_dir=", "--limits=30s"]) == 2
    assert "the run of 30s ended with exit code 2" in capfd.readouterr().err


@pytest.mark.parametrize("limits", ["soon", "3s", "5min,,"])
def test_bad_limits(limits, tmp_path, capsys):
    assert time_limits.main([f"--work={tmp_path}", f"--limits={limits}"]) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.count("\n") == 1 and "received" in printed.err
    assert not list(tmp_path.iterdir())
