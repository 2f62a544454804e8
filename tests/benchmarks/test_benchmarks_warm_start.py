"""benchmarks.warm_start: its table, and where both beginnings are equal; nothing is trained."""

import math

import pytest

from benchmarks import warm_start


def entry(seed, epochs, init, accuracy):
    return {"seed": seed, "epochs": epochs, "init": init, "accuracy": accuracy}


RESULTS = [
    *(entry(s, 3.0, "scratch", 0.40 + s / 100) for s in range(3)),
    *(entry(s, 3.0, "supernet", 0.50) for s in range(3)),
    *(entry(s, 12.0, "scratch", 0.60) for s in range(3)),
    *(entry(s, 12.0, "supernet", 0.57) for s in range(3)),
    *(entry(s, e, "supernet_half_rate", 0.61) for s in range(3) for e in (3.0, 12.0)),
]


def test_report():
    found = warm_start.report(RESULTS, False)
    assert [row["epochs"] for row in found["rows"]] == [3.0, 12.0]
    first = found["rows"][0]
    assert (first["scratch"], first["scratch_deviation"]) == (0.41, 0.01)
    assert (first["supernet"], first["supernet_deviation"]) == (0.5, 0.0)
    # It gains 9 points after 3 epochs and loses 3 after 12: three quarters of the way between.
    crossings = found["crossing_epochs"]
    assert crossings["supernet"] == pytest.approx(3 * math.sqrt(8), abs=0.01)
    assert crossings["supernet_half_rate"] is None


@pytest.mark.parametrize("arguments", [["--epochs=0"], ["--epochs=a"], ["--seeds=-1"]])
def test_bad_input_is_one_sentence(arguments, tmp_path, capsys):
    assert warm_start.main([f"--work={tmp_path}", "--quick", *arguments]) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.count("\n") == 1 and "received" in printed.err
