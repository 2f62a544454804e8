"""The published networks: the authors' golden checkpoint, and random ones for M and L.

What needs PyTorch is skipped where it is missing: the golden file and the comparisons with the
reference network.
"""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tf_keras
from torch_checkpoints import call

from neas_tf.commands.convert_torch import model_from, read_checkpoint
from neas_tf.ensemble.store import load_model
from neas_tf.ensemble.torch_weight_names import torch_layout
from neas_tf.export.formats import predict_exported
from neas_tf.space import zoo
from neas_tf.space.search_space import SearchSpace

PAPER = SearchSpace()
TOLERANCE = 1e-4


@pytest.fixture(scope="session")
def golden(shared_dir):
    """The authors' network with random weights: its checkpoint, and what it computed."""
    folder = shared_dir / "golden"
    if not folder.is_dir():
        pytest.skip("no golden checkpoint: ../shared/golden is missing")
    return folder / "neas_s_random.pth.tar", np.load(folder / "neas_s_random.npz")


def reference(*arguments):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    script = pathlib.Path(__file__).parents[1] / "support" / "torch_reference.py"
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def official(name):
    return ",".join(map(str, zoo.load_architecture(name).to_official()))


def trunk_and_logits(model, architecture, space, pictures):
    """What the trunk gives, (n, h, w, c), and the logits of all paths, (K, n, classes)."""
    last = [n for n, op in enumerate(architecture.shared, 1) if op != "skip"][-1]
    prefix = f"trunk_l{last:02d}_{architecture.shared[last - 1]}_"
    end = [layer for layer in model.layers if layer.name.startswith(prefix)][-1]
    both = tf_keras.Model(model.input, [end.output, model.output])
    trunk, logits = both.predict(pictures, verbose=0)
    return trunk, logits.transpose(1, 0, 2)


def assert_same(model, name, pictures, wanted, prefix=""):
    trunk, logits = trunk_and_logits(model, zoo.load_architecture(name), PAPER, pictures)
    # The golden trunk reaches 65, where float32 itself resolves 1e-5 in each of 70 layers.
    scale = max(1.0, float(np.abs(wanted[f"{prefix}trunk"]).max()))
    assert trunk.shape == wanted[f"{prefix}trunk"].shape
    assert np.abs(trunk - wanted[f"{prefix}trunk"]).max() <= TOLERANCE * scale
    assert np.abs(logits - wanted[f"{prefix}head_logits"]).max() <= TOLERANCE
    assert np.abs(logits.mean(0) - wanted[f"{prefix}ensemble_logits"]).max() <= TOLERANCE


def test_the_golden_checkpoint(golden, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    path, wanted = golden
    done = call(
        "convert_torch", "--arch=neas_s", f"--torch_checkpoint={path}", f"--output={tmp_path / 'o'}"
    )
    assert done.returncode == 0, done.stderr
    assert "301,500,768 MACs, 8,657,656 parameters" in done.stdout
    model, info = load_model(tmp_path / "o" / "retrain" / "model")
    assert info.architecture.name.lower().replace("-", "_") == "neas_s"
    assert_same(model, "neas_s", wanted["normalised"], wanted)
    found = predict_exported(tmp_path / "o" / "export" / "saved_model", wanted["image"])
    assert np.abs(found["logits"] - wanted["ensemble_logits"]).max() <= TOLERANCE


def test_the_reference_network_passes_the_golden_case(golden, tmp_path):
    path, wanted = golden
    folder = pathlib.Path(path).parent
    results = tmp_path / "found.npz"
    reference("run", path, official("neas_s"), folder / "neas_s_random.npz", results)
    found = np.load(results)
    for key, scale in (("trunk", 65.2), ("head_logits", 1), ("ensemble_logits", 1)):
        assert found[key].shape == wanted[key].shape
        assert np.abs(found[key] - wanted[key]).max() <= TOLERANCE * scale


@pytest.mark.parametrize("name", ["neas_m", "neas_l"])
def test_random_checkpoints_equal_the_reference_network(name, tmp_path):
    pictures = np.random.default_rng(3).standard_normal((2, 224, 224, 3)).astype(np.float32)
    np.savez(tmp_path / "images.npz", normalised=pictures)
    path, results = tmp_path / "c.pth.tar", tmp_path / "found.npz"
    reference("make", path, official(name), tmp_path / "images.npz", results)
    wanted, architecture = np.load(results), zoo.load_architecture(name)
    plain = read_checkpoint(path, architecture, PAPER)
    assert_same(
        model_from(plain, architecture, PAPER), name, pictures, wanted, prefix="state_dict/"
    )
    averaged = read_checkpoint(path, architecture, PAPER, use_ema=True)
    model = model_from(averaged, architecture, PAPER)
    assert_same(model, name, pictures, wanted, prefix="state_dict_ema/")
    old = read_checkpoint(f"{path}.old", architecture, PAPER)  # the form before PyTorch 1.6
    assert all(np.array_equal(old[place], plain[place]) for place in plain)


@pytest.mark.parametrize("name", ["neas_s", "neas_m", "neas_l"])
def test_names_and_shapes_of_the_published_networks(name, golden):
    architecture = zoo.load_architecture(name)
    layout = torch_layout(architecture, PAPER)
    names = [weight.name for weight in layout.weights.values()]
    assert len(set(names)) == len(names)
    assert not layout.unused & set(names)
    skips = [
        sum(op != "skip" for op in row[architecture.split_point :]) for row in architecture.paths
    ]
    for path, count in enumerate(skips):
        assert f"blocks.{path}.0.{count}.conv.weight" in names
        assert f"blocks.{path}.0.{count + 1}.conv.weight" not in names
    trainable = sum(
        int(np.prod(weight.shape))
        for weight in layout.weights.values()
        if "running" not in weight.name
    )
    assert trainable == {"neas_s": 8_657_656, "neas_l": 12_444_832}.get(name, trainable)
