"""How many operations a step runs, and how it grows: at toy size, and what is bad input."""

import json

import pytest

from benchmarks import growth, step_operations


def test_operations_are_counted_where_they_run(tmp_path):
    path = tmp_path / "operations.json"
    arguments = ["--case=tiny", "--draws=2", f"--output={path}"]
    assert step_operations.main(arguments) == 0
    found = json.loads(path.read_text())["here"]
    kinds = found["kinds"]
    assert found["operations"] <= found["most"] < 900
    # Two heads and a stem always; 3 layers and 2 paths at most.
    assert 5 <= kinds["FusedBatchNormV3"] <= 5 + 3 * 2 * 3
    assert kinds["FusedBatchNormGradV3"] == kinds["FusedBatchNormV3"]
    assert kinds["ResourceSparseApplyKerasMomentum"] == 3


def test_a_point_and_its_picture(tmp_path):
    path, plot = tmp_path / "growth.json", tmp_path / "growth.png"
    words = ["--what=layers", "--largest=5", "--steps=2", f"--output={path}", f"--plot={plot}"]
    assert growth.main(words) == 0
    (row,) = json.loads(path.read_text())["growth"]["layers"]
    assert row["layers"] == 5 and row["step_ms"] > 0 and row["memory_gb"] > 0.1
    assert 500 < row["operations"] < 2000
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("program", "argument"),
    [
        (step_operations, "--case=k9"),
        (step_operations, "--draws=0"),
        (step_operations, "--against=/nowhere"),
        (growth, "--what=weather"),
        (growth, "--steps=0"),
    ],
)
def test_bad_input_ends_in_one_sentence(program, argument, capsys):
    assert program.main([argument]) == 2
    assert capsys.readouterr().err.startswith("error: ")
