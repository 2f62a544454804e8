"""What a stranger hands in first: one sentence, no store that is taken for a whole one, then it works."""

import subprocess
import time

import numpy as np
import pytest
import warm
from doc_pages import environment
from image_files import folder

from neas_tf.api import store
from neas_tf.api.search import given_settings, prepare
from neas_tf.common.errors import NeasError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
LABELS = np.arange(24) % 2


def planned(model_dir, data, test=None, validation=None):
    return prepare(data, test, validation, model_dir, given_settings({}))


def with_nan():
    images = PIXELS / np.float32(255)
    images[7, 0, 0, 0] = np.nan
    return images


def endless():
    while True:
        yield from zip(PIXELS, LABELS, strict=True)


def unplugged():
    yield from zip(PIXELS[:9], LABELS[:9], strict=True)
    raise ValueError("no more")


@pytest.mark.parametrize(
    "data, said",
    [
        (lambda: (PIXELS, LABELS[:20]), "data labels: received '20 labels for 24 images', expec"),
        (lambda: (with_nan(), LABELS), "data images: image 7 has a pixel that is NaN or infinite"),
        (lambda: (PIXELS.transpose(0, 3, 1, 2), LABELS), "expected channels last: x.transpose"),
        (lambda: (PIXELS, LABELS * 0), "all examples have the label 0, expected two classes"),
        (lambda: (PIXELS[:4], LABELS[:4]), "the class 0 has 1 training image, expected two at"),
        (lambda: (PIXELS[:2], LABELS[:2]), "no class has more than one image"),
        (lambda: (PIXELS[:0], LABELS[:0]), "expected one image at least"),
        (endless, "data: received a dataset without end"),
        (unplugged, r"data: the dataset failed after 9 examples \(ValueError: no more\)"),
    ],
    ids=lambda value: "" if callable(value) else value[:20],
)
def test_a_refused_call_leaves_nothing_and_a_sound_one_follows(tmp_path, data, said):
    with pytest.raises(NeasError, match=said) as error:
        planned(tmp_path / "run", data())
    assert str(error.value).count("\n") == 0
    left = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert not left or left == [".lock"]
    config, _ = planned(tmp_path / "run", (PIXELS, LABELS))
    assert config.data.class_names == ["0", "1"]


@pytest.mark.parametrize("part", ["test", "validation"])
def test_the_other_parts_are_looked_at_as_well(tmp_path, part):
    sound = {"data": (PIXELS, LABELS), "test": (PIXELS[:6], LABELS[:6])}
    for wrong, said in (
        ((PIXELS[:6], LABELS[:6] + 5), f"the {part} has the class '[56]', of which there is no"),
        ((PIXELS[:6, :, :, 0], LABELS[:6]), f"{part} images: received '1 channels', expected '?3"),
        ((PIXELS[:6], LABELS[:5]), f"{part} labels: received '5 labels for 6 images'"),
        (iter(()), f"{part}: received 'no example'|no class has more than one image"),
    ):
        with pytest.raises(NeasError, match=said):
            planned(tmp_path / "run", **{**sound, part: wrong})
        assert not (tmp_path / "run" / store.FOLDER).exists()


def test_what_is_recognised_is_said(tmp_path, capsys):
    one_hot = np.eye(2)[LABELS]
    config, _ = planned(tmp_path / "run", (PIXELS / 255, one_hot))
    said = capsys.readouterr().err
    assert "data images are in 0..1 and are taken times 255." in said
    assert "data labels are one-hot; class numbers are taken." in said
    assert config.data.input_size == [8, 8] and config.data.label_offset == 0
    config, _ = planned(tmp_path / "from_one", (PIXELS, np.arange(24) // 20 + 1))
    assert "Labels count from 1: 1 is taken off" in capsys.readouterr().err
    assert config.data.label_offset == 1 and config.data.class_names == ["1", "2"]
    planned(tmp_path / "uneven", (PIXELS, np.where(np.arange(24) < 3, 1, 0)))
    assert "Warning: classes have 2 to 17 training images" in capsys.readouterr().err


def test_a_store_of_a_killed_call_is_not_taken_for_a_whole_one(tmp_path):
    """The writer is killed between two images; the same call then begins again."""
    code = f"""
import pathlib, time
import numpy as np
from neas_tf.api import store
def images():
    rng = np.random.default_rng(0)
    for number in range(500):
        if number == 300:
            pathlib.Path("at_work").touch()
            time.sleep(600)
        yield rng.integers(0, 256, (8, 8, 3)).astype(np.uint8), number % 2
store.store(pathlib.Path({str(tmp_path / "run")!r}), images())
"""
    process = warm.Process(["-c", code], cwd=tmp_path, env=environment())
    while not (tmp_path / "at_work").exists() and process.poll() is None:
        time.sleep(0.1)
    assert list((tmp_path / "run").glob(f".{store.FOLDER}.*/new/train-*"))
    process.kill()
    process.wait()
    assert not (tmp_path / "run" / store.FOLDER).exists()
    config, _ = planned(tmp_path / "run", (PIXELS, LABELS))
    assert config.data.class_names == ["0", "1"] and (tmp_path / "run" / store.FOLDER).is_dir()


def shell(*arguments, cwd):
    command = [warm.python(), "-m", "neas_tf", "search", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False
    )


def test_the_shell_says_the_same_in_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    folder(tmp_path / "made", per_class=2)
    (tmp_path / "made" / "train").rename(tmp_path / "two_each")
    (tmp_path / "one").mkdir()
    (tmp_path / "two_each" / "cat").rename(tmp_path / "one" / "cat")
    for arguments, said in (
        (["empty"], "is empty; expected one folder for each class"),
        (["one"], "holds one folder, 'cat'; expected one for each of two classes"),
        (["two_each"], "the class 'dog' has 1 training image(s), expected two at least"),
        (["nowhere"], "expected a folder of pictures"),
        ([], "data: received nothing, expected one folder of pictures"),
        (["one", "two"], "data: received one two, expected one folder of pictures"),
        (["two_each", "--input_size=big"], "input_size: received 'big', expected pixels"),
    ):
        done = shell(*arguments, "--model_dir=run", cwd=tmp_path)
        lines = [x for x in done.stderr.splitlines() if x.startswith("neas search:")]
        assert done.returncode == 2 and len(lines) == 1 and said in lines[0], done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()
