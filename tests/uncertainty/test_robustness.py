"""An interrupted `neas robustness` continues with the counts that it kept."""

import json

import digits_ensemble
import numpy as np
import pytest

from neas_tf.commands import robustness
from neas_tf.commands.robustness import Counts, measure

BATCH, IMAGES = 16, 40
CELLS = 1 + len(robustness._CELLS)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def info():
    return digits_ensemble.dataset()


@pytest.fixture(autouse=True)
def corruptions(monkeypatch):
    """Without the library's time: severities and kinds add to the pixels, as the number does."""

    def add(image, kind, severity, seed, number):
        more = 9 * severity + robustness.KINDS.index(kind) + number % 7 + seed
        return np.minimum(image.astype(int) + more, 255).astype(np.uint8)

    monkeypatch.setattr(robustness, "corrupted", add)


def network(calls, stop_after=None, shift=0):
    """What names two paths and their ensemble by the sum of the pixels."""

    def named(pixels):
        if len(calls) == stop_after:
            raise Stopped
        calls.append(len(pixels))
        sums = pixels.astype(np.int64).sum((1, 2, 3)) + shift
        return np.stack([sums % 10, sums // 3 % 10, sums // 7 % 10], 1)

    return {"tested": (named, 2)}


@pytest.mark.parametrize("stop", [1, 7, CELLS, CELLS + 5, 2 * CELLS + 1])
def test_it_continues_where_it_was_stopped(info, tmp_path, monkeypatch, capsys, stop):
    bars, bar = [], robustness.console.bar
    monkeypatch.setattr(robustness.console, "bar", lambda *a: bars.append(bar(*a)) or bars[-1])
    path = tmp_path / "counts.json"
    whole = measure(network([]), info, IMAGES, BATCH, 3)
    with pytest.raises(Stopped):
        counts = Counts(path, {"weights": "w"})
        measure(network([], stop), info, IMAGES, BATCH, 3, counts)
    calls, counts = [], Counts(path, {"weights": "w"})
    assert measure(network(calls), info, IMAGES, BATCH, 3, counts) == whole
    assert len(calls) == 3 * CELLS - stop
    done = bars[-1].initial
    assert done == sum([BATCH if cell % CELLS else 0 for cell in range(stop)][:stop])
    assert bars[-1].n == bars[-1].total == IMAGES * (CELLS - 1)
    assert f"Continues after {done:,} corrupted pictures." in capsys.readouterr().err
    counts.remove()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [None, b"{", b"[]", b"{}", b'{"format": "neas-robustness-counts/1", "identity": 0}']
)
def test_counts_of_something_else_are_not_mixed_in(info, tmp_path, content, capsys):
    path = tmp_path / "counts.json"
    with pytest.raises(Stopped):
        measure(network([], 9), info, IMAGES, BATCH, 3, Counts(path, {"weights": "w"}))
    if content is not None:
        path.write_bytes(content)
    other = measure(network([], shift=5), info, IMAGES, BATCH, 3, Counts(path, {"weights": "v"}))
    assert other == measure(network([], shift=5), info, IMAGES, BATCH, 3)
    assert "begins anew" in capsys.readouterr().err
    assert sum(json.loads(path.read_text())["seen"]) == IMAGES * CELLS
