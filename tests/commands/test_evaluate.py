"""The evaluation command: right counts, any source, the model's own image size and scale."""

import json
import os
import subprocess

import image_files
import numpy as np
import pytest
import tensorflow as tf
import warm
from small_ensembles import ENSEMBLES, SPACE, randomise

from neas_tf import data
from neas_tf.commands.evaluate import (
    check_classes,
    data_config,
    evaluate_folder,
    format_text,
    model_folder,
)
from neas_tf.common.class_names import compare_classes
from neas_tf.common.errors import NeasError
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import project_file
from neas_tf.data import DataConfig
from neas_tf.ensemble.confusion import Confusion
from neas_tf.ensemble.model import build_ensemble
from neas_tf.ensemble.store import LoadedInfo, save_model
from neas_tf.space.search_space import SearchSpace
from neas_tf.training.accuracy import evaluate

ARCHITECTURE = ENSEMBLES["two_paths"]
CLASSES = ("cat", "dog", "owl")
SCALE = Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def space_for(classes, size=(24, 20), channels=3):
    return SearchSpace.from_dict(
        {
            **SPACE.to_dict(),
            "num_classes": classes,
            "input_size": list(size),
            "input_channels": channels,
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder with a model of three classes."""
    folder, space = tmp_path_factory.mktemp("run"), space_for(3)
    model = build_ensemble(ARCHITECTURE, space)
    randomise(model)
    save_model(folder / "retrain" / "model", model, ARCHITECTURE, space, CLASSES, SCALE)
    return folder


def info_of(classes=CLASSES, space=None):
    space = space or space_for(len(classes))
    scale = SCALE if space.input_channels == 3 else Normalisation((0.5,), (0.5,))
    return LoadedInfo(ARCHITECTURE, space, tuple(classes), scale)


class Fixed:
    """A 'model' whose logits are the pixels of its images."""

    def __call__(self, images, training):
        assert training is False
        flat = tf.reshape(images, (-1, 64))
        return tf.stack([flat[:, :10], flat[:, 20:30], flat[:, 40:50]], axis=1)


@pytest.mark.parametrize("batch_size", [7, 100, 1000])
def test_accuracy_counts_every_image_once(batch_size):
    info = data.load(DataConfig(), test_only=True)
    assert set(info.parts) == {"test"}
    confusion = Confusion(10, 3)
    shown = []

    def seen(images, labels, logits):
        shown.append(images)
        confusion.add(labels, logits.argmax(-1))

    result = evaluate(Fixed(), info, "test", batch_size, seen)
    whole = data.load(DataConfig())
    images, labels = data.make_arrays(whole, "test", 0, 0)
    logits = Fixed()(images, False).numpy().astype(np.float64)
    scores = np.concatenate([logits, logits.mean(1, keepdims=True)], 1)
    np.testing.assert_array_equal(np.concatenate(shown), data.make_images(whole, "test", 0, 0)[0])
    best = np.argsort(-scores, axis=-1, kind="stable")
    top1 = (best[..., 0] == labels[:, None]).mean(0)
    top5 = (best[..., :5] == labels[:, None, None]).any(-1).mean(0)
    assert result["test_examples"] == 360
    np.testing.assert_allclose([*result["path_accuracies"], result["ensemble_accuracy"]], top1)
    np.testing.assert_allclose([*result["path_top5"], result["top5"]], top5)
    assert 0 < top1.min() < top5.min() < 1
    counts = confusion.to_dict()
    assert counts["examples"] == sum(count for *_, count in counts["counts"]) == 360
    assert sum(n for label, named, n in counts["counts"] if label == named) == 360 * top1[-1]
    differ = (best[:, :-1, None, 0] != best[:, None, :-1, 0]).sum(0)
    assert counts["differ"] == differ.tolist() and differ.max() > 0
    wrong = [360 - counts["both_wrong"][k][k] for k in range(3)]
    np.testing.assert_allclose(wrong, 360 * top1[:-1])


def test_folder_records_and_bare_folder_give_the_same_images(run, tmp_path):
    root = image_files.folder(tmp_path / "pictures", per_class=8, test="val")
    folder = run / "retrain" / "model"
    results = []
    for place in (root, root / "val"):
        config = data_config(
            info_of(), run, [], [f"source=image_folder,data_dir={place}", "cache=none"]
        )
        assert (list(config.input_size), config.input_channels) == ([24, 20], 3)
        assert config.center_crop_fraction == 0.875
        results.append(evaluate_folder(folder, config, batch_size=5))
    for result in results:
        assert result["test_examples"] == 12
        assert [set(row) for row in result["paths"]] == [{"top1"}, {"top1"}]  # 3 classes: no top-5
        assert result["warning"] == ""
    assert results[0]["ensemble"] == results[1]["ensemble"]
    pattern = image_files.records(tmp_path, "test", 2, 6, first_label=1)
    config = data_config(
        info_of(),
        None,
        [],
        [f"source=tfrecord,data_dir={tmp_path},test_pattern={pattern},label_offset=1"],
    )
    result = evaluate_folder(folder, config, batch_size=5)
    assert (result["test_examples"], result["data"]["center_crop_fraction"]) == (12, 0.875)
    config.label_offset = 0
    with pytest.raises(NeasError, match="label_offset"):
        evaluate_folder(folder, config, batch_size=5)


def test_tfds(shared_dir, tmp_path):
    if not (shared_dir / "data" / "tfds" / "cifar10").is_dir():
        pytest.skip("no CIFAR-10 in ../shared/data/tfds")
    source = f"source=tfds,name=cifar10,data_dir={shared_dir / 'data' / 'tfds'}"
    space = space_for(10, (32, 32))
    model = build_ensemble(ARCHITECTURE, space)
    randomise(model)
    info = info_of([f"{i}" for i in range(10)], space)
    save_model(tmp_path / "m", model, ARCHITECTURE, space, info.class_names, SCALE)
    config = data_config(info, None, [], [source, "test_split='test[:200]'"])
    result = evaluate_folder(tmp_path / "m", config, batch_size=64)
    assert result["test_examples"] == 200
    assert 0 <= result["ensemble"]["top1"] <= result["ensemble"]["top5"] <= 1
    text = format_text(result)
    assert "cifar10: 200 images at 32×32" in text and "top-5" in text
    assert [x.split("  ")[1] for x in text.splitlines() if "%" in x] == [
        "path 1",
        "path 2",
        "ensemble",
    ]
    assert text.count("%") == 6 and "AUROC of 0." in text.splitlines()[-1]


def test_the_runs_own_data_and_changes_to_them(tmp_path):
    (tmp_path / "params.yaml").write_text(
        "seed: 3\ndata: {source: digits, center_crop_fraction: 1.0, mean: [0.1], std: [0.2]}\n"
    )
    info = info_of("0123456789", space_for(10, (8, 8), 1))
    config = data_config(info, tmp_path, [], [])
    assert (config.source, config.center_crop_fraction) == ("digits", 1.0)
    assert (config.mean, config.std) == ([0.5], [0.5])  # the model's
    config = data_config(info, tmp_path, [], ["center_crop_fraction=0.5"])
    assert (config.source, config.center_crop_fraction) == ("digits", 0.5)
    config = data_config(info, tmp_path, [], ["source=tfds,name=mnist"])
    assert (config.name, config.center_crop_fraction) == ("mnist", 0.875)  # afresh
    (tmp_path / "other.yaml").write_text("data:\n  source: tfds\n  name: cifar10\n")
    config = data_config(info, tmp_path, [str(tmp_path / "other.yaml")], ["test_split=train"])
    assert (config.name, config.test_split) == ("cifar10", "train")


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        ([], "received no source"),
        (["name=cifar10"], "received no source"),
        (["source=digit"], "unknown name 'digit'"),
        (["source=tfds,nam=cifar10"], r"data\.nam.*'name'"),
        (["source=digits,search_fraction=many"], "a number"),
        (["source=digits,input_size=[9,9]"], r"the model's \[24, 20\]"),
        (["source=digits,input_channels=1"], "the model's 3"),
        (["source=image_folder,data_dir=/nowhere/at/all"], "there is no folder"),
        (["source=digits"], "has 10 classes, the model 3"),
    ],
)
def test_data_that_do_not_fit(overrides, match, run):
    with pytest.raises(NeasError, match=match):
        config = data_config(info_of(), None, [], overrides)
        evaluate_folder(run / "retrain" / "model", config, 10)


def test_names_of_classes():
    class Names:
        name = "pets"

        def __init__(self, *names):
            self.class_names = names

    assert check_classes(info_of(), Names(*CLASSES)) == ""
    assert check_classes(info_of(), Names("0", "1", "2")) == ""
    assert check_classes(info_of(("0", "1", "2")), Names(*CLASSES)) == ""
    assert "class 2: 'hen', 'owl'" in check_classes(info_of(), Names("cat", "dog", "hen"))
    with pytest.raises(NeasError, match="another order"):
        check_classes(info_of(), Names("cat", "owl", "dog"))


def test_which_model(run, tmp_path):
    assert model_folder(str(run), None) == model_folder(None, str(run / "retrain" / "model"))
    for arguments, match in (
        ((None, None), "Give either"),
        ((str(run), str(run)), "Give either"),
        ((str(tmp_path), None), "no retrained model yet"),
        ((None, str(run)), r"no model\.json"),
    ):
        with pytest.raises(NeasError, match=match):
            model_folder(*arguments)


def command(*arguments):
    return subprocess.run(
        [warm.python(), "-m", "neas_tf.evaluate", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": project_file()},
        check=False,
        timeout=300,
    )


def test_the_command(run, tmp_path):
    done = command("--help")
    assert "--model_dir" in done.stdout and "--data" in done.stdout
    root = image_files.folder(tmp_path / "pictures")
    single = tmp_path / "single"
    model = build_ensemble(ENSEMBLES["one_path"], space_for(3))
    randomise(model)
    save_model(single, model, ENSEMBLES["one_path"], space_for(3), CLASSES, SCALE)
    data_flag = f"--data=source=image_folder,data_dir={root}"
    output = tmp_path / "test.json"
    done = command(
        f"--model_dir={run}",
        data_flag,
        "--format=json",
        f"--compare={single}",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads(output.read_text()) == result
    compared, sure = result["compared"], result["uncertainty"]
    assert compared["uncertainty"]["disagreement"] is None
    assert compared["ensemble"]["top1"] == compared["uncertainty"]["ensemble"]["accuracy"]
    assert [row["accuracy"] for row in [*sure["paths"], sure["ensemble"]]] == [
        row["top1"] for row in [*result["paths"], result["ensemble"]]
    ]
    lines = [x.split("  ")[1] for x in format_text(result).splitlines() if "%" in x]
    assert lines == ["path 1", "path 2", "ensemble", "compared"]
    assert (result["format"], result["test_examples"]) == ("neas-evaluation/1", 9)
    assert len(result["paths"]) == 2
    other = tmp_path / "other"
    save_model(other, build_ensemble(ARCHITECTURE, SPACE), ARCHITECTURE, SPACE, "abcde", SCALE)
    for wrong, said in ((tmp_path, "of a model."), (other, f"received '{other} of 5 classes'")):
        done = command(f"--model_dir={run}", data_flag, f"--compare={wrong}")
        assert (done.returncode, done.stdout) == (2, "")
        assert (
            done.stderr.startswith("neas_tf.evaluate: --compare: received") and said in done.stderr
        )
    done = command(f"--model_dir={tmp_path}")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("neas_tf.evaluate: ") and done.stderr.count("\n") == 1


def test_a_name_of_both_must_stand_for_the_same_label():
    """A class renamed from cat to zebra moves the others down; then nothing can be compared."""
    with pytest.raises(NeasError, match="class 0 is 'dog', which is class 1 of the model"):
        compare_classes(CLASSES, ("dog", "owl", "zebra"), "pets")
