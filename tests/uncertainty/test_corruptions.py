"""Corrupted pictures and the errors on them; what needs the library skips without it."""

# The library draws from NumPy's global state.
# ruff: noqa: NPY002

import json
import os
import subprocess
import sys
import types

import image_files
import numpy as np
import pytest
from small_ensembles import ENSEMBLES, SPACE, randomise

from neas_tf.commands import robustness
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import project_file
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import save_model
from neas_tf.space.search_space import SearchSpace
from neas_tf.uncertainty import corruptions
from neas_tf.uncertainty.corruptions import KINDS, check_size, corrupted, library
from neas_tf.uncertainty.robustness import relative

CLASSES = ("cat", "dog", "owl")


@pytest.fixture
def library_there():
    pytest.importorskip("imagecorruptions", reason="the extra 'robustness' is not installed")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(NeasError, match=r"'pip install neas-tf\[robustness\]' installs it"):
        library()


def test_the_edition_without_seeds(monkeypatch):
    """Another package has the same module, whose functions draw as they like."""
    other = types.SimpleNamespace(corrupt=lambda image, severity=1, corruption_name=None: image)
    monkeypatch.setitem(sys.modules, "imagecorruptions", other)
    with pytest.raises(NeasError, match="takes no seed, expected the one of package"):
        library()


@pytest.mark.parametrize("shape", [(31, 64, 3), (64, 64, 4)])
def test_pictures_that_the_library_does_not_take(shape):
    with pytest.raises(NeasError, match="expected 32 pixels a side or more, of 1 or 3 channels"):
        check_size(*shape)
    check_size(32, 40, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_corruption_depends_on_its_numbers_only(kind, library_there, rng):
    y, x = np.mgrid[:32, :40]
    image = np.stack([4 * y + x, 255 - 3 * y, 5 * x], -1).clip(0, 255).astype(np.uint8)
    np.random.seed(3)
    state = np.random.get_state()[1].tolist()
    first = corrupted(image, kind, 3, 0, 7)
    assert np.random.get_state()[1].tolist() == state, "the global state is as it was"
    np.random.seed(4)
    np.testing.assert_array_equal(corrupted(image, kind, 3, 0, 7), first)
    assert first.shape == image.shape and first.dtype == np.uint8 and (first != image).any()
    far = [np.abs(corrupted(image, kind, s, 0, 7).astype(int) - image).mean() for s in (1, 5)]
    assert far[0] < far[1]
    assert corrupted(image[..., :1], kind, 2, 0, 7).shape == (32, 40, 1)


def test_errors_relative_to_a_baseline():
    own = {"errors": [[0.1, 0.3], [0.2, 0.2]]}
    assert relative(own, {"errors": [[0.2, 0.2], [0.4, 0.4]]}) == pytest.approx(0.75)
    assert relative(own, {"errors": [[0.0, 0.0], [0.4, 0.4]]}) is None


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of an ensemble and of a single network for 32 × 40 pixels and three classes."""
    folder = tmp_path_factory.mktemp("models")
    space = {**SPACE.to_dict(), "input_size": [32, 40], "num_classes": 3}
    scale = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    for name in ("two_paths", "one_path"):
        model = build_ensemble(ENSEMBLES[name], SearchSpace.from_dict(space))
        randomise(model)
        parts = (ENSEMBLES[name], SearchSpace.from_dict(space), CLASSES, scale)
        save_model(folder / name, model, *parts)
    return folder


def test_the_command(models, library_there, tmp_path, monkeypatch):
    """Counts against an own loop; without the library's time: severities add to the pixels."""
    root = image_files.folder(tmp_path / "pictures", per_class=4, test="val")
    code = (
        "import sys, numpy as np\n"
        "from neas_tf.commands import robustness\n"
        "from neas_tf.uncertainty import robustness as counting\n"
        "def add(image, kind, severity, seed, number):\n"
        "    return np.minimum(image.astype(int) + 9 * severity + counting.KINDS.index(kind), 255).astype(np.uint8)\n"
        "counting.corrupted = add\n"
        "from neas_tf.common import command_line\n"
        "robustness.define_flags()\n"
        "command_line.run(robustness.main, printed=True)\n"
    )
    flags = [
        f"--model={models / 'two_paths'}",
        f"--compare={models / 'one_path'}",
        f"--data=source=image_folder,data_dir={root}",
        f"--output={tmp_path / 'out'}",
        "--images=5",
        "--batch_size=2",
        "--format=json",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                filter(None, [project_file(), os.environ.get("PYTHONPATH")])
            ),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((tmp_path / "out/robustness.json").read_text())
    assert (result["format"], result["examples"]) == ("neas-robustness/1", 5)
    tested, compared = (result["networks"][name] for name in ("tested", "compared"))
    assert len(tested["paths"]) == 2 and np.shape(tested["ensemble"]["errors"]) == (15, 5)
    assert tested["ensemble"]["mean"] == pytest.approx(np.mean(tested["ensemble"]["errors"]))
    assert compared["paths"][0] == compared["ensemble"]
    assert result["mce"] == relative(tested["ensemble"], compared["ensemble"])
    text = (tmp_path / "out/README.md").read_text()
    assert "| | path 1 | path 2 | ensemble | compared: network |" in text
    assert text.count("%") == 4 * 17
    assert (tmp_path / "out/robustness.png").read_bytes()[:4] == b"\x89PNG"
    assert set(os.listdir(tmp_path / "out")) == set(robustness.FILES)


def test_what_is_refused_before_any_work(models, tmp_path, monkeypatch):
    from absl import flags as absl_flags

    small = SPACE.to_dict()
    space = SearchSpace.from_dict({**small, "num_classes": 3})
    model = build_ensemble(ENSEMBLES["one_path"], space)
    scale = Normalisation((0.5,) * 3, (0.5,) * 3)
    save_model(tmp_path / "small", model, ENSEMBLES["one_path"], space, CLASSES, scale)
    monkeypatch.setattr(corruptions, "library", lambda: None)
    monkeypatch.setattr(robustness, "library", lambda: None)
    monkeypatch.setattr(robustness.command_line, "start_tensorflow", lambda threads: None)
    train = image_files.folder(tmp_path / "pictures", per_class=3)
    values = absl_flags.FlagValues()
    monkeypatch.setattr(absl_flags, "FLAGS", values)
    base = {
        "model_dir": None,
        "model": str(models / "two_paths"),
        "compare": None,
        "output": str(tmp_path / "o"),
    }
    base |= {"threads": 0, "config_file": [], "data": [], "images": 5, "batch_size": 2, "seed": 0}
    for changes, said in (
        ({"model": str(tmp_path / "small")}, "expected 32 pixels a side or more"),
        ({"output": None}, "--output: received None"),
        ({"compare": str(tmp_path / "small")}, r"--compare: received \(24, 20, 3\)"),
        ({"compare": str(tmp_path)}, "--compare: received"),
        (
            {"data": [f"source=tfrecord,data_dir={train},train_pattern=x*"]},
            "data.test_pattern: received ''",
        ),
    ):
        given = type("Flags", (), {**base, **changes})
        monkeypatch.setattr(robustness.flags, "FLAGS", given)
        with pytest.raises(NeasError, match=said):
            robustness._run(["neas robustness"])
        assert not (tmp_path / "o").exists()
