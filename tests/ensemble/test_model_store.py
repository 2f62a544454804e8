import dataclasses
import json
import os

import numpy as np
import pytest
from full_disk import full_disk
from small_ensembles import ENSEMBLES, SPACE, images, randomise

from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import (
    load_model,
    load_weights,
    read_info,
    save_model,
    weights_content,
    weights_digest,
)

ARCHITECTURE = ENSEMBLES["two_paths"]
NAMES = ["cat", "dog", "cow", "hen", "fox"]
PLAIN = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def model():
    model = build_ensemble(ARCHITECTURE, SPACE)
    randomise(model)
    return model


def listing(folder):
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("architecture", ENSEMBLES.values(), ids=ENSEMBLES)
def test_a_loaded_model_computes_the_same(architecture, tmp_path):
    model = build_ensemble(architecture, SPACE, drop_path=0.1)
    randomise(model)
    folder = save_model(tmp_path / "deep" / "model", model, architecture, SPACE, NAMES, PLAIN)
    assert sorted(p.name for p in folder.iterdir()) == [
        "architecture.json",
        "model.json",
        "weights.weights.h5",
    ]
    assert [p.name for p in folder.parent.iterdir()] == ["model"]
    again, info = load_model(folder)
    np.testing.assert_array_equal(again(images()), model(images()))
    assert info == read_info(folder)
    assert (info.architecture, info.space) == (architecture, SPACE)
    assert (info.class_names, info.normalisation) == (tuple(NAMES), PLAIN)
    assert info.versions["tensorflow"]


def test_new_weights_of_the_same_model_replace_the_old_ones(model, tmp_path):
    save_model(tmp_path / "m", model, ARCHITECTURE, SPACE, NAMES, PLAIN)
    other = build_ensemble(ARCHITECTURE, SPACE)
    save_model(tmp_path / "m", other, ARCHITECTURE, SPACE, NAMES, PLAIN.to_dict())
    again, _ = load_model(tmp_path / "m")
    np.testing.assert_array_equal(again.get_weights()[0], other.get_weights()[0])
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("change", ["names", "normalisation", "space"])
def test_a_different_model_is_never_overwritten(change, model, tmp_path):
    save_model(tmp_path / "m", model, ARCHITECTURE, SPACE, NAMES, PLAIN)
    before = listing(tmp_path)
    names = NAMES[::-1] if change == "names" else NAMES
    plain = Normalisation() if change == "normalisation" else PLAIN
    space = dataclasses.replace(SPACE, min_split=1) if change == "space" else SPACE
    with pytest.raises(NeasError, match="different model"):
        save_model(tmp_path / "m", model, ARCHITECTURE, space, names, plain)
    assert listing(tmp_path) == before


def test_a_foreign_folder_or_file_is_left_alone(model, tmp_path):
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("x")
    before = listing(tmp_path)
    for target in (folder, tmp_path / "file"):
        with pytest.raises(NeasError, match="not a model"):
            save_model(target, model, ARCHITECTURE, SPACE, NAMES, PLAIN)
    with pytest.raises(NeasError, match="cannot be written"):
        save_model(tmp_path / "file" / "below", model, ARCHITECTURE, SPACE, NAMES, PLAIN)
    assert listing(tmp_path) == before
    (tmp_path / "empty").mkdir()
    save_model(tmp_path / "empty", model, ARCHITECTURE, SPACE, NAMES, PLAIN)


def test_parts_must_agree(model, tmp_path):
    with pytest.raises(NeasError, match="layers are not those"):
        save_model(tmp_path / "m", model, ENSEMBLES["all_shared"], SPACE, NAMES, PLAIN)
    with pytest.raises(NeasError, match="4 names"):
        save_model(tmp_path / "m", model, ARCHITECTURE, SPACE, NAMES[:4], PLAIN)
    with pytest.raises(NeasError, match="class_names"):
        save_model(tmp_path / "m", model, ARCHITECTURE, SPACE, ["a\nb", *NAMES[1:]], PLAIN)
    with pytest.raises(NeasError, match="3 numbers"):
        save_model(tmp_path / "m", model, ARCHITECTURE, SPACE, NAMES, Normalisation((0.5,), (0.5,)))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_what_was_there(there, model, tmp_path):
    """HDF5 itself would end the process."""
    if there:
        save_model(tmp_path / "m", model, ARCHITECTURE, SPACE, NAMES, PLAIN)
    before = listing(tmp_path)
    other = build_ensemble(ARCHITECTURE, SPACE)
    with full_disk(10_000), pytest.raises(NeasError, match=r"cannot be written .*File too large"):
        save_model(tmp_path / "m", other, ARCHITECTURE, SPACE, NAMES, PLAIN)
    assert listing(tmp_path) == before and os.listdir(tmp_path) == ["m"] * there


def test_weights_made_in_memory_are_those_of_the_library(model, tmp_path):
    path = tmp_path / "w.weights.h5"
    model.save_weights(str(path))
    content = weights_content(model)
    assert weights_digest(content) == weights_digest(path)
    (tmp_path / "again.weights.h5").write_bytes(content)
    again = load_weights(ARCHITECTURE, SPACE, tmp_path / "again.weights.h5")
    for one, other in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert weights_digest(weights_content(build_ensemble(ARCHITECTURE, SPACE))) != weights_digest(
        path
    )
    path.write_bytes(b"no HDF5")
    with pytest.raises(NeasError, match=r"w\.weights\.h5'.* cannot be read"):
        weights_digest(path)


def test_damaged_folders_are_named(model, tmp_path):
    with pytest.raises(NeasError, match="no file"):
        load_model(tmp_path)
    folder = save_model(tmp_path / "m", model, ARCHITECTURE, SPACE, NAMES, PLAIN)
    wrong = ENSEMBLES["three_paths"].to_dict()
    (folder / "architecture.json").write_text(json.dumps(wrong))
    with pytest.raises(NeasError, match="not the weights"):
        load_model(folder)
    (folder / "weights.weights.h5").write_bytes(b"no HDF5")
    with pytest.raises(NeasError, match="not the weights"):
        load_model(folder)
    (folder / "model.json").write_text('{"format": "neas-model/2"}')
    with pytest.raises(NeasError, match="neas-model/1"):
        load_model(folder)


def test_weights_of_another_architecture_are_refused(model, tmp_path):
    path = str(tmp_path / "w.weights.h5")
    model.save_weights(path)
    np.testing.assert_array_equal(
        load_weights(ARCHITECTURE, SPACE, path)(images()), model(images())
    )
    for name in ("one_path", "all_shared", "nothing_shared"):
        with pytest.raises(NeasError, match="not the weights"):
            load_weights(ENSEMBLES[name], SPACE, path)
    for bad in (tmp_path / "none.weights.h5", tmp_path / "w.ckpt"):
        with pytest.raises(NeasError, match="weights"):
            load_weights(ARCHITECTURE, SPACE, bad)
