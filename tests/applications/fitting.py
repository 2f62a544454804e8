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
    operators=("k3e2", "k7e2", "skip"),
    min_split=0,
    max_split=2,
    head_channels=16,
    feature_channels=16,
)
ARCHITECTURE = neas.Architecture(1, (("k7e2", "k3e2"), ("k7e2", "k7e2")))
STEPS, BATCH = 20, 32


def begin(weights: str | None = None, **options: Any) -> Any:
    """The model, with random weights or those of a file, compiled as by default."""
    model = neas.applications.ensemble_model(
        ARCHITECTURE, SPACE, weights=weights, dropout=0.0, seed=0, **options
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Pixels in 0..255 (1797, 8, 8, 1) and labels, shuffled."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return images.reshape(-1, 8, 8, 1)[order] * (255 / 16), labels[order]


def curve(model: Any) -> list[float]:
    """The loss of each of the first steps."""
    x, y = (values[: STEPS * BATCH] for values in digits())
    return [
        float(model.train_on_batch(x[i : i + BATCH], y[i : i + BATCH], return_dict=True)["loss"])
        for i in range(0, STEPS * BATCH, BATCH)
    ]


def learn(model: Any) -> float:
    """Accuracy on the last 297 digits after some epochs with the others."""
    x, y = digits()
    model.optimizer.learning_rate = 3e-3
    model.fit(x[:1500], y[:1500], batch_size=50, epochs=8, shuffle=False, verbose=0)
    return float(model.evaluate(x[1500:], y[1500:], verbose=0, return_dict=True)["accuracy"])


if __name__ == "__main__":
    started = begin()  # random weights
    loaded = [name for name in ("tensorflow", "tf_keras") if name in sys.modules]
    import keras

    result: dict[str, Any] = {
        "backend": keras.backend.backend(),
        "loaded": loaded,
        "jit": started.jit_compile,
    }
    following = begin(sys.argv[1])
    result["curve"] = curve(following)
    result["accuracy"] = learn(following)
    with open(sys.argv[2], "w") as file:
        json.dump(result, file)
