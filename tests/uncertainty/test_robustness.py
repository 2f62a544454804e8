"""An interrupted `neas robustness` continues with the counts that it kept."""

import json
import types

import digits_ensemble
import image_files
import numpy as np
import pytest
from small_ensembles import ENSEMBLES, SPACE, randomise

from neas_tf import data
from neas_tf.commands import evaluate, robustness
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import read_info, save_model
from neas_tf.run.record import digest_of
from neas_tf.space.search_space import SearchSpace
from neas_tf.uncertainty import robustness as counting
from neas_tf.uncertainty.corruptions import KINDS
from neas_tf.uncertainty.robustness import CELLS as CORRUPTIONS
from neas_tf.uncertainty.robustness import Counts, measure

BATCH, IMAGES = 16, 40
CELLS = 1 + len(CORRUPTIONS)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def info():
    return digits_ensemble.dataset()


@pytest.fixture(autouse=True)
def corruptions(monkeypatch):
    """Without the library's time: severities and kinds add to the pixels, as the number does."""

    def add(image, kind, severity, seed, number):
        more = 9 * severity + KINDS.index(kind) + number % 7 + seed
        return np.minimum(image.astype(int) + more, 255).astype(np.uint8)

    monkeypatch.setattr(counting, "corrupted", add)


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
    bars, bar = [], counting.console.bar
    monkeypatch.setattr(counting.console, "bar", lambda *a: bars.append(bar(*a)) or bars[-1])
    path = tmp_path / "counts.json"
    whole = measure(network([]), info, IMAGES, BATCH, 3)
    with pytest.raises(Stopped):
        counts = Counts(path, "w")
        measure(network([], stop), info, IMAGES, BATCH, 3, counts)
    calls, counts = [], Counts(path, "w")
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
        measure(network([], 9), info, IMAGES, BATCH, 3, Counts(path, "w"))
    if content is not None:
        path.write_bytes(content)
    other = measure(network([], shift=5), info, IMAGES, BATCH, 3, Counts(path, "v"))
    assert other == measure(network([], shift=5), info, IMAGES, BATCH, 3)
    assert "starts again" in capsys.readouterr().err
    assert sum(json.loads(path.read_text())["seen"]) == IMAGES * CELLS


def test_the_identity_is_of_networks_pictures_and_flags(tmp_path):
    space = SearchSpace.from_dict({**SPACE.to_dict(), "input_size": [32, 40], "num_classes": 3})
    model = build_ensemble(ENSEMBLES["one_path"], space)
    folders, opened = [], []
    for number in range(2):
        folders.append(tmp_path / f"model{number}")
        randomise(model, number)
        parts = (ENSEMBLES["one_path"], space, ("cat", "dog", "owl"), Normalisation())
        save_model(folders[-1], model, *parts)
        root = image_files.folder(tmp_path / f"data{number}", per_class=2 + number, test="val")
        found = evaluate.data_config(
            read_info(folders[0]), None, [], [{"source": "image_folder", "data_dir": str(root)}]
        )
        opened.append(data.load(found, test_only=True))

    def digest(networks, pictures, **flags):
        values = types.SimpleNamespace(**{"images": 5, "batch_size": 2, "seed": 0, **flags})
        return digest_of(robustness._identity(networks, pictures, values))

    base = [folders[0], None], opened[0]
    others = [
        digest([folders[1], None], opened[0]),
        digest(folders, opened[0]),
        digest([folders[0], None], opened[1]),
        *(digest(*base, **{name: 9}) for name in ("images", "batch_size", "seed")),
    ]
    assert digest(*base) == digest(*base) and len({digest(*base), *others}) == 7
