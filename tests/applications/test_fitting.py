"""`model.fit` under Keras 3's backends: the same curve, and it learns."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import fitting
import numpy as np
import pytest
import warm
from doc_pages import BLOCK, environment
from small_ensembles import ENSEMBLES, SPACE

from neas_tf.applications import ensemble_model
from neas_tf.common.paths import project_file


@pytest.mark.parametrize(("backend", "jit"), [("jax", True), ("torch", False)])
def test_other_backends_learn_as_tensorflow_does(backend, jit, tmp_path):
    """The same weights and batches: loss curves within 1e-3; no TensorFlow in the process."""
    if importlib.util.find_spec(backend) is None:  # not imported beside TensorFlow
        pytest.skip(f"{backend} is not installed")
    model = fitting.begin()
    model.save_weights(tmp_path / "first.weights.h5")
    program = os.path.join(os.path.dirname(__file__), "fitting.py")
    other = subprocess.Popen(
        [sys.executable, program, str(tmp_path / "first.weights.h5"), str(tmp_path / "fit.json")],
        env=os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": project_file()},
        stderr=subprocess.PIPE,
        text=True,
    )
    losses, accuracy = fitting.fit(model)
    stderr = other.communicate()[1]
    assert other.returncode == 0, stderr
    theirs = json.loads((tmp_path / "fit.json").read_text())
    assert (theirs["backend"], theirs["loaded"], theirs["jit"]) == (backend, [], jit)
    np.testing.assert_allclose(theirs["losses"], losses, atol=1e-3)
    assert min(accuracy, theirs["accuracy"]) > 0.7 and losses[-1] < losses[0]


def test_the_papers_loss_with_paths():
    """Each path by itself; then the weights fit the ensemble of the same order."""
    options = {"seed": 0, "dropout": 0.0}
    paths = ensemble_model(ENSEMBLES["two_paths"], SPACE, outputs="paths", **options)
    mean = ensemble_model(ENSEMBLES["two_paths"], SPACE, **options)
    paths.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 255, (8, 24, 20, 3)), rng.integers(0, 5, 8)
    before = paths.predict(x, verbose=0)
    loss = paths.train_on_batch(x, np.repeat(y[:, None], 2, axis=1))
    assert loss > 0 and not np.allclose(before, paths.predict(x, verbose=0))
    mean.set_weights(paths.get_weights())
    logits = np.log(paths.predict(x, verbose=0)).mean(axis=1)
    wanted = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(mean.predict(x, verbose=0), wanted, atol=1e-5)


def test_the_page(tmp_path):
    """docs/fine_tuning.md as it stands."""
    text = pathlib.Path(project_file("docs", "fine_tuning.md")).read_text("utf-8")
    code = "\n".join(code for kind, code in BLOCK.findall(text) if kind == "python")
    done = subprocess.run(
        [warm.python(), "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    lines = done.stdout.splitlines()
    assert lines[0] == "(None, 10)" and "(4, 2, 32)" in lines and "five" in done.stdout
    assert any(line.startswith("0.9") for line in lines), done.stdout
    assert "'low.keras' has classifiers for 5 classes" not in done.stderr
