"""Official checkpoints, and every kind of misfit; what is converted is what a file would hold: names and arrays."""

import collections
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch_checkpoints
from small_ensembles import ENSEMBLES, SPACE, images, randomise
from torch_checkpoints import call

from neas_tf.commands import convert_torch
from neas_tf.commands.convert_torch import convert, model_from, read_checkpoint
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import project_file
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import LoadedInfo, load_model
from neas_tf.ensemble.torch_weight_names import torch_layout
from neas_tf.space import zoo
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

PAPER = SearchSpace()


@pytest.fixture
def checkpoints(monkeypatch):
    """Takes the place of files: what each path holds, arrays instead of tensors."""
    contents = {}
    monkeypatch.setattr(convert_torch, "load_checkpoint", contents.__getitem__)
    return contents


PATH = "c.pth.tar"


def written(checkpoints, architecture, seed=0, space=SPACE, change=None, wrap=True):
    """Puts the weights of a random small ensemble under PATH; returns the model."""
    model = build_ensemble(architecture, space)
    randomise(model, seed)
    state = torch_checkpoints.state_dict(model, architecture, space)
    if change:
        change(state)
    checkpoints[PATH] = {"epoch": 0, "state_dict": state} if wrap else state
    return model


@pytest.mark.parametrize("architecture", ENSEMBLES.values(), ids=ENSEMBLES)
def test_there_and_back(architecture, checkpoints):
    model = written(checkpoints, architecture)
    again = model_from(read_checkpoint(PATH, architecture, SPACE), architecture, SPACE)
    np.testing.assert_array_equal(again(images()), model(images()))


@pytest.mark.parametrize("name", ["neas_m", "neas_l"])
def test_published_networks_there_and_back(name, checkpoints):
    """Skips, both paths and all names of M and L, at full width."""
    architecture = zoo.load_architecture(name)
    space = dataclasses.replace(PAPER, input_size=(32, 32))
    model = written(checkpoints, architecture, space=space)
    again = model_from(read_checkpoint(PATH, architecture, space), architecture, space)
    for wanted, found in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_prefix_half_precision_ema_and_bare_state_dicts(checkpoints):
    architecture = ENSEMBLES["two_paths"]

    def prefix(state):
        for key in list(state):
            state[f"module.{key}"] = state.pop(key)

    def halve(state):
        for key, value in state.items():
            state[key] = value.astype("<f2") if value.dtype == "<f4" else value

    model = written(checkpoints, architecture, change=prefix, wrap=False)
    found = model_from(read_checkpoint(PATH, architecture, SPACE), architecture, SPACE)
    np.testing.assert_array_equal(found(images()), model(images()))
    model = written(checkpoints, architecture, change=halve)
    found = model_from(read_checkpoint(PATH, architecture, SPACE), architecture, SPACE)
    np.testing.assert_allclose(found(images()), model(images()), atol=0.1)
    with pytest.raises(NeasError, match="epoch, state_dict, expected one with 'state_dict_ema'"):
        read_checkpoint(PATH, architecture, SPACE, use_ema=True)
    state = torch_checkpoints.state_dict(model, architecture, SPACE)
    checkpoints[PATH] = {"state_dict": {"x": np.zeros(1, "<f4")}, "state_dict_ema": state}
    found = read_checkpoint(PATH, architecture, SPACE, use_ema=True)
    np.testing.assert_array_equal(model_from(found, architecture, SPACE)(images()), model(images()))


@pytest.mark.parametrize(
    "prefix",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "module.module.",
        "model.",
        "model.net.",
        "backbone.",
        "model._orig_mod.",
        "neas.trunk.",
    ],
)
def test_prefixes_of_wrappers_are_taken_off(prefix, checkpoints):
    architecture = ENSEMBLES["one_path"]

    def change(state):
        for key in list(state):
            state[prefix + key] = state.pop(key)

    model = written(checkpoints, architecture, change=change)
    found = model_from(read_checkpoint(PATH, architecture, SPACE), architecture, SPACE)
    np.testing.assert_array_equal(found(images()), model(images()))


def test_wrappers_within_names_are_taken_off(checkpoints):
    """torch.compile of a part: only its own weights bear the word."""
    architecture = ENSEMBLES["two_paths"]

    def change(state):
        for key in list(state):
            if key.startswith("blocks.0."):
                state[key.replace("blocks.0.", "blocks.0._orig_mod.")] = state.pop(key)
            elif key.endswith("num_batches_tracked"):
                del state[key]

    model = written(checkpoints, architecture, change=change)
    found = model_from(read_checkpoint(PATH, architecture, SPACE), architecture, SPACE)
    np.testing.assert_array_equal(found(images()), model(images()))


@pytest.mark.parametrize(
    ("wrap", "use_ema"),
    [
        (lambda s: {"model": s, "epoch": 3}, False),
        (lambda s: {"model": "neas_s", "model_state": s}, False),
        (lambda s: {"model_state_dict": s, "optimizer": {"state": {0: {"step": 1}}}}, False),
        (lambda s: {"state_dict": {"module": s}}, False),
        (
            lambda s: {"state_dict": s, "scheduler": {"milestones": collections.Counter({30: 1})}},
            False,
        ),
        (lambda s: {"ema": s}, True),
        (lambda s: {"ema": {"module": s, "decay": 0.9}, "model": {"x": 1}}, True),
        (lambda s: {**s, "bn1.num_batches_tracked": 7, "_extra_state": None}, False),
    ],
)
def test_keys_of_other_training_programs(wrap, use_ema, checkpoints):
    architecture = ENSEMBLES["one_path"]
    model = written(checkpoints, architecture)
    state = torch_checkpoints.state_dict(model, architecture, SPACE)
    checkpoints[PATH] = wrap({k: v.astype("<f8") for k, v in state.items()})
    found = read_checkpoint(PATH, architecture, SPACE, use_ema=use_ema)
    np.testing.assert_array_equal(model_from(found, architecture, SPACE)(images()), model(images()))
    if use_ema:
        with pytest.raises(NeasError, match=r"--use_ema takes its averaged|not a mapping"):
            read_checkpoint(PATH, architecture, SPACE)


def test_refusals_are_short_and_name_the_cause(checkpoints):
    space = dataclasses.replace(PAPER, input_size=(32, 32), num_classes=20)
    architecture = zoo.load_architecture("neas_s")
    written(checkpoints, architecture, space=space)
    said = []
    for name, classes in (("neas_s", 1000), ("neas_l", 1000), ("neas_l", 20)):
        wanted = dataclasses.replace(space, num_classes=classes)
        with pytest.raises(NeasError) as caught:
            read_checkpoint(PATH, zoo.load_architecture(name), wanted)
        said.append(str(caught.value))
    assert said[0].endswith("are for 20 classes, expected 1000; --num_classes=20 takes them.")
    assert "not those of 'neas_l' but those of 'neas_s' with 20 classes; missing (" in said[1]
    assert "not those of 'neas_l' but those of 'neas_s'; missing (" in said[2]
    checkpoints[PATH] = {f"layer{i}.{'x' * 200}": np.zeros(1, "<f4") for i in range(999)}
    with pytest.raises(
        NeasError, match=r"missing \(\d+\): conv_stem.weight, .*, …; extra \(999\)"
    ) as caught:
        read_checkpoint(PATH, architecture, space)
    assert max(map(len, (*said, str(caught.value)))) < 600


def test_a_conversion_that_ends_early_leaves_everything_as_it_was(
    checkpoints, tmp_path, monkeypatch
):
    from neas_tf.export import formats as exporting

    architecture, output = ENSEMBLES["one_path"], tmp_path / "o" / "p"
    info = LoadedInfo(architecture, SPACE, tuple("abcde"), Normalisation())
    written(checkpoints, architecture)
    export = exporting.export_saved_model

    def contents():
        files = (p for p in tmp_path.rglob("*") if p.is_file())
        return {p: p.read_bytes() for p in files}

    def stopped(*args, **kwargs):
        export(*args, **kwargs)
        raise KeyboardInterrupt

    def refused(model, info, where, **kwargs):
        raise NeasError(f"export {str(where)!r}: its logits differ.")

    for _ in range(2):  # the second time over an earlier conversion
        before = contents()
        monkeypatch.setattr(exporting, "export_saved_model", stopped)
        with pytest.raises(KeyboardInterrupt):
            convert(PATH, output, info, overwrite=True)
        monkeypatch.setattr(exporting, "export_saved_model", refused)
        with pytest.raises(NeasError, match=f"export '{output}/export/saved_model': its"):
            convert(PATH, output, info, overwrite=True)
        assert contents() == before
        monkeypatch.setattr(exporting, "export_saved_model", export)
        convert(PATH, output, info, overwrite=True)
        (output / "notes.txt").write_text("mine")
        written(checkpoints, architecture, seed=3)
    convert(PATH, output, info, overwrite=True)
    assert sorted(p.name for p in output.iterdir()) == ["export", "notes.txt", "retrain"]
    assert sorted(p.name for p in (output / "export").iterdir()) == [
        "saved_model",
        "saved_model.json",
        "saved_model.labels.txt",
    ]


def test_all_that_does_not_fit_is_listed(checkpoints):
    architecture = ENSEMBLES["two_paths"]

    def change(state):
        del state["bn1.bias"], state["blocks.1.0.0.conv_dw.weight"]
        state["sharing_blocks.0.9.conv_pw.weight"] = state["blocks.0.0.0.bn9.x"] = np.zeros(
            1, "<f4"
        )
        state["classifiers.1.weight"] = state["classifiers.1.weight"].T
        state["conv_stem.weight"] = np.zeros(3, "<f4")

    written(checkpoints, architecture, change=change)
    with pytest.raises(NeasError) as caught:
        read_checkpoint(PATH, architecture, SPACE)
    message = str(caught.value)
    assert "missing (2): bn1.bias, blocks.1.0.0.conv_dw.weight" in message
    assert "extra (2): sharing_blocks.0.9.conv_pw.weight, blocks.0.0.0.bn9.x" in message
    assert "misshapen (2): conv_stem.weight 3 for 8×3×3×3, classifiers.1.weight 24×5 for 5×24" in (
        message
    )
    assert "\n" not in message


def test_weights_of_another_published_network_are_named(checkpoints):
    space = dataclasses.replace(PAPER, input_size=(32, 32))
    written(checkpoints, zoo.load_architecture("neas_s"), space=space)
    with pytest.raises(NeasError, match=r"not those of .* but those of 'neas_s'; missing"):
        read_checkpoint(PATH, zoo.load_architecture("neas_l"), PAPER)


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("bn1.running_var", np.full(8, -1, "<f4"), "negative variance"),
        ("bn1.weight", np.full(8, np.nan, "<f4"), "finite numbers"),
        ("bn1.bias", np.zeros(8, "<i8"), "floating-point"),
        ("module.bn1.bias", np.zeros(8, "<f4"), "with and without 'module.': bn1.bias"),
        ("bn1.bias", "text", "not a mapping from names to tensors"),
    ],
)
def test_unsound_numbers_are_refused(key, value, match, checkpoints):
    architecture = ENSEMBLES["one_path"]
    written(checkpoints, architecture, change=lambda state: state.update({key: value}))
    with pytest.raises(NeasError, match=match):
        read_checkpoint(PATH, architecture, SPACE)


def test_conversion_replaces_only_when_told(checkpoints, tmp_path):
    architecture, output = ENSEMBLES["two_paths"], tmp_path / "o"
    names = tuple("abcde")
    info = LoadedInfo(architecture, SPACE, names, Normalisation())
    written(checkpoints, architecture)
    report = convert(PATH, output, info)
    assert report["parity"]["max_abs_diff"] < 1e-4
    model = written(checkpoints, architecture, seed=9)
    with pytest.raises(NeasError, match="is there already"):
        convert(PATH, output, info)
    convert(PATH, output, info, overwrite=True)
    found, there = load_model(output / "retrain" / "model")
    assert there.class_names == names
    np.testing.assert_array_equal(found(images()), model(images()))
    other = dataclasses.replace(info, class_names=tuple("vwxyz"))
    with pytest.raises(NeasError, match="different model"):
        convert(PATH, output, other, overwrite=True)


def test_operators_that_the_authors_lack(tmp_path):
    space = dataclasses.replace(SPACE, operators=("k3e2", "skip"))
    with pytest.raises(NeasError, match="an operator of the paper"):
        torch_layout(Architecture(2, (("k3e2", "skip", "k3e2", "skip"),)), space)


def test_the_command_tells_mistakes_in_one_line_without_tensorflow(tmp_path):
    done = call("convert_torch", "--help")
    assert "--torch_checkpoint" in done.stdout and "--[no]use_ema" in done.stdout
    (tmp_path / "x.pth.tar").write_bytes(b"no checkpoint")
    file = f"--torch_checkpoint={tmp_path / 'x.pth.tar'}"
    output = f"--output={tmp_path / 'o'}"
    for arguments, said in (
        ((), "arch"),
        (("--arch=neas_xs", file, output), "Did you mean"),
        (("--arch=neas_s", output), "torch_checkpoint"),
        (("--arch=neas_s", file), "output"),
        (("--arch=neas_s", file, output), "PyTorch"),
        (("--arch=neas_s", file, output, "more"), "flags only"),
    ):
        done = call("convert_torch", *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("neas_tf.convert_torch: ") and said in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "o").exists()
    code = "import sys, neas_tf.commands.convert_torch as c; sys.exit(bool({'tensorflow', 'torch'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=project_file()).returncode == 0
