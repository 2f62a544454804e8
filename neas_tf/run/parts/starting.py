"""The weights that a retraining starts from (`retrain.init`): what they are, and putting them in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import tf_keras

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import write_bytes_atomic
from neas_tf.config.settings import NeasConfig
from neas_tf.ensemble import store as model_store
from neas_tf.run.cluster import Cluster
from neas_tf.run.identity import Identity
from neas_tf.run.parts.measuring import training_part
from neas_tf.run.supernet_stage import load_shrunk, load_supernet
from neas_tf.search.evaluation import CandidateEvaluator
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.supernet.inheritance import inherited_ensemble
from neas_tf.training.checkpoints import latest_step
from neas_tf.training.initial_weights import (
    SUPERNET,
    digest_of_stored,
    is_path,
    put_weights,
    read_weights,
)

_FIELD = "retrain.init"
# The supernet's weights for the ensemble, so that all workers begin with the same bits.
_INITIAL = Path("retrain") / "initial.weights.h5"


def start_identity(
    config: NeasConfig, model_dir: Path, architecture: Architecture, space: SearchSpace
) -> dict[str, Any]:
    """What the initial weights follow from, for the retraining's identity; {} from scratch.

    Raises:
      NeasError: where they are missing or cannot be read.
    """
    init, record = config.retrain.init, model_dir / "retrain" / "identity.json"
    if is_path(init):
        return digest_of_stored(init, _FIELD, record, architecture, space)
    if init != SUPERNET:
        return {}
    supernet = model_dir / "supernet"
    if record.exists() and not latest_step(supernet):  # it may go once a retraining has begun
        return {}
    _check_supernet(config, model_dir, architecture, space)
    identity = (supernet / "identity.json").read_bytes()
    return {
        "initial_weights": {
            "supernet": hashlib.sha256(identity).hexdigest()[:16],
            "supernet_step": latest_step(supernet),
            "calibration_images": config.search.calibration_images,
            "calibration_batch": config.search.calibration_batch,
        }
    }


def check_start(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    architecture: Architecture,
    space: SearchSpace,
) -> None:
    """Raises `NeasError` where a retraining could not begin with the weights that it shall."""
    init = config.retrain.init
    if is_path(init):
        stored = read_weights(init, _FIELD, architecture, space)
        stored.fitted(architecture, space, info.class_names)
    elif init == SUPERNET:
        Identity("supernet", config, model_dir, info).check()


def start_ensemble(
    model: tf_keras.Model,
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    architecture: Architecture,
    space: SearchSpace,
    cluster: Cluster,
) -> None:
    """Puts the initial weights into a fresh model; leaves it alone from scratch."""
    init = config.retrain.init
    if is_path(init):
        stored = read_weights(init, _FIELD, architecture, space)
        values = stored.fitted(architecture, space, info.class_names)
        put_weights(model, values)
        console.say(f"   It {stored.told(values)}.")
    elif init == SUPERNET:
        path = model_dir / _INITIAL
        if cluster.is_chief:
            inherited = _inherited(config, model_dir, info, architecture, space)
            write_bytes_atomic(path, model_store.weights_content(inherited))
        cluster.barrier()
        initial = model_store.load_weights(architecture, space, path)
        for variable, value in zip(model.weights, initial.get_weights(), strict=True):
            variable.assign(value)


def _inherited(
    config: NeasConfig,
    model_dir: Path,
    info: data.DatasetInfo,
    architecture: Architecture,
    space: SearchSpace,
) -> tf_keras.Model:
    """The ensemble with the supernet's weights, its BN statistics as the search recalculates them."""
    supernet, search = load_supernet(config, model_dir, space), config.search
    part = training_part(config)
    images, labels = data.make_images(info, part, search.calibration_images, config.seed)
    evaluator = CandidateEvaluator(
        supernet,
        images,
        images,
        labels,
        search.calibration_batch,
        normalisation=info.normalisation,
    )
    return inherited_ensemble(supernet, architecture, evaluator.statistics(architecture))


def _check_supernet(
    config: NeasConfig, model_dir: Path, architecture: Architecture, space: SearchSpace
) -> None:
    try:
        load_shrunk(model_dir, space)
    except NeasError as error:
        raise NeasError(
            f"{_FIELD}: received {SUPERNET!r}, but {str(model_dir)!r} holds no finished supernet "
            "that it could start from; expected scratch, a path, or --stage=supernet run first."
        ) from error
    paths = architecture.num_paths
    check(
        paths == config.num_paths,
        _FIELD,
        f"an ensemble of {paths} paths",
        f"the supernet's {config.num_paths}",
    )
