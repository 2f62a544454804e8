"""One small `fit`, the same under every backend of Keras 3; run as a program, under the one that is set.

fitting.py WEIGHTS.weights.h5 RESULT.json
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import neas_tf as neas

SPACE = neas.SearchSpace(
    name="digits",
    input_size=(8, 8),
    input_channels=1,
    num_classes=10,
    stem_channels=8,
    stem_stride=1,
    block_channels=0,
    stages=(neas.Stage(8, 1, 1), neas.Stage(16, 1, 2)),
    operators=("k3e2", "k5e2", "skip"),
    min_split=0,
    max_split=2,
    head_channels=16,
    feature_channels=16,
)
ARCHITECTURE = neas.Architecture(1, (("k3e2", "k3e2"), ("k3e2", "k5e2")))
STEPS, IMAGES = 20, 800


def begin(weights: str | None = None, **options: Any) -> Any:
    """The model, with random weights or those of a file, compiled as by default."""
    model = neas.applications.ensemble_model(
        ARCHITECTURE, SPACE, weights=weights, dropout=0.0, seed=0, **options
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.learning_rate = 0.01
    return model


def fit(model: Any) -> tuple[list[float], float]:
    """Trains on digits: the mean loss after each of the first steps, accuracy in the last epoch."""
    import keras  # after neas_tf, which settles its backend

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[:IMAGES]
    pixels = images.reshape(-1, 8, 8, 1)[order] * (255 / 16)
    losses: list[float] = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: losses.append(float(logs["loss"]))
    )
    done = model.fit(pixels, labels[order], epochs=3, shuffle=False, verbose=0, callbacks=[keep])
    return losses[:STEPS], done.history["accuracy"][-1]


if __name__ == "__main__":
    model = begin(sys.argv[1])
    loaded = [name for name in ("tensorflow", "tf_keras") if name in sys.modules]
    import keras

    losses, accuracy = fit(model)
    result = {"backend": keras.backend.backend(), "loaded": loaded, "jit": model.jit_compile}
    with open(sys.argv[2], "w") as file:
        json.dump(result | {"losses": losses, "accuracy": accuracy}, file)
