"""Refuses an experiment before anything of it is written, one sentence a mistake."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from official.core import exp_factory, input_reader

from detection import experiments
from detection.backbone import architecture_and_space
from detection.initialising import check_modules, find_checkpoint
from detection.levels import check_levels, level_layers
from detection.task import padded_size
from neas_tf.errors import NeasError, check, unknown_name
from neas_tf.model_store import read_info
from neas_tf.parse_config import apply_override, check_known, load_file, read_overrides

PARAMS = "params.yaml"


def load_experiment(
    name: str, config_files: Iterable[str], params_override: str | Mapping[str, Any]
) -> Any:
    """The settings that Model Garden will read from the same flags, with our checks.

    Raises:
      NeasError: for an unknown experiment or key, with the nearest known one, or a wrong value.
    """
    if name not in experiments.NAMES:
        unknown_name("experiment", name, experiments.NAMES)
    config = exp_factory.get_exp_config(name)
    for override in read_overrides(config_files, params_override):
        check_known(_without_stages(override), config)
        apply_override(config, override)
    try:
        config.validate()
    except (KeyError, ValueError) as error:
        raise NeasError(f"config: {' '.join(str(error).split())}") from None
    return config


def _without_stages(override: Mapping[str, Any]) -> dict[str, Any]:
    """Settings less the space's stages, which are checked here: a list of mappings of numbers."""
    path, nodes = ("task", "model", "backbone", "neas", "space"), [dict(override)]
    for name in path:
        inner = nodes[-1].get(name)
        if not isinstance(inner, Mapping):
            return nodes[0]
        nodes[-1][name] = dict(inner)
        nodes.append(nodes[-1][name])
    field, stages = ".".join((*path, "stages")), nodes[-1].pop("stages", [])
    keys = ["channels", "layers", "stride"]
    good = isinstance(stages, (list, tuple)) and all(
        isinstance(stage, Mapping) and sorted(stage) == keys for stage in stages
    )
    check(good, field, stages, "a list, each {channels, layers, stride}")
    return nodes[0]


def check_experiment(config: Any, mode: str, model_dir: str) -> None:
    """Checks sizes, levels, files and the folder.

    Args:
      config: of `load_experiment`.
      mode: of Model Garden's flag; `train…` needs the training records, `…eval…` the others.
      model_dir: of the run; may hold an earlier sitting of the same model.

    Raises:
      NeasError: names the setting and what was wrong with it.
    """
    task = config.task
    check_sizes(task)
    check_backbone(task)
    parts = {"train_data": "train" in mode, "validation_data": "eval" in mode}
    for part, needed in parts.items():
        if needed:
            check_records(f"task.{part}", getattr(task, part))
    if "eval" in mode and task.annotation_file:
        path = task.annotation_file
        found = tf.io.gfile.exists(path)
        check(found, "task.annotation_file", path, "an existing file of COCO annotations, or none")
    if "train" in mode:
        check_initial(task)
        check_same_model(task, model_dir)


def check_sizes(task: Any) -> None:
    """Checks that the pyramid fits the images."""
    model, size = task.model, task.model.input_size
    good = len(size) == 3 and all(isinstance(n, int) and n > 0 for n in size)
    check(good and size[2] == 3, "task.model.input_size", size, "[height, width, 3]")
    check(
        1 <= model.min_level <= model.max_level <= 10,
        "task.model.max_level",
        model.max_level,
        f"a level from task.model.min_level ({model.min_level}) to 10",
    )
    stride = 2**model.max_level
    check(
        all(n % stride == 0 for n in padded_size(task)),
        "task.model.input_size",
        size,
        f"multiples of {stride} (stride of max_level {model.max_level}) where "
        "task.train_data.parser.pad is off",
    )
    check(
        task.train_data.parser.pad == task.validation_data.parser.pad,
        "task.validation_data.parser.pad",
        task.validation_data.parser.pad,
        "the value of task.train_data.parser.pad",
    )
    classes = model.num_classes
    check(classes > 1, "task.model.num_classes", classes, "the largest class id plus 1")


def check_backbone(task: Any) -> None:
    """Checks that a NEAS backbone has the levels that the pyramid wants."""
    backbone = task.model.backbone
    if backbone.type != "neas":
        return
    architecture, space = architecture_and_space(backbone.neas)
    name = architecture.name or architecture.key
    check_levels("task.model.min_level", task.model.min_level, space, name)
    check(
        backbone.neas.min_level <= task.model.min_level,
        "task.model.backbone.neas.min_level",
        backbone.neas.min_level,
        f"at most task.model.min_level, which is {task.model.min_level}",
    )
    check(
        task.model.max_level >= min(max(level_layers(space)), task.model.min_level),
        "task.model.max_level",
        task.model.max_level,
        "at least task.model.min_level",
    )


def check_records(field: str, data: Any) -> None:
    """Checks that patterns match files.

    Raises:
      NeasError: for a pattern without a file, or no data at all.
    """
    if data.tfds_name:
        return
    pattern = data.input_path
    if not pattern:
        raise NeasError(f"{field}.input_path: received nothing, allowed is a pattern of TFRecords.")
    try:
        patterns = pattern.as_dict().values() if hasattr(pattern, "as_dict") else [pattern]
        files = [file for each in patterns for file in input_reader.match_files(each)]
    except (ValueError, tf.errors.OpError):
        files = []
    if not files or not all(tf.io.gfile.exists(file) for file in files):
        raise NeasError(
            f"{field}.input_path: no file matches {str(pattern)!r}; allowed is a pattern of "
            "TFRecords, such as 'coco/train*'."
        )


def check_initial(task: Any) -> None:
    """Checks that the first weights are there and, where they are an ensemble's, the backbone's."""
    if not task.init_checkpoint:
        return
    found = find_checkpoint(task.init_checkpoint)
    if not isinstance(found, Path):
        return
    check_modules(task.init_checkpoint_modules)
    theirs = read_info(found).architecture
    backbone = task.model.backbone
    ours = architecture_and_space(backbone.neas)[0] if backbone.type == "neas" else None
    if ours != theirs:
        name = (ours.name or ours.key) if ours else backbone.type
        raise NeasError(
            f"task.init_checkpoint: {str(found)!r} holds the weights of "
            f"{theirs.name or theirs.key!r}, but the backbone is {name!r}."
        )


def check_same_model(task: Any, model_dir: str) -> None:
    """Refuses to go on from checkpoints of another model, which would be restored in part."""
    path = os.path.join(model_dir, PARAMS)
    if tf.train.latest_checkpoint(model_dir) is None or not os.path.isfile(path):
        return
    theirs = (load_file(path).get("task") or {}).get("model") or {}
    changed = _difference(theirs, task.model.as_dict())
    if changed:
        raise NeasError(
            f"model_dir: {model_dir!r} holds a run with another task.model.{changed}; allowed is "
            "the same model, or another folder."
        )


def _difference(theirs: Any, ours: Any, path: str = "") -> str:
    """The first setting of a model that differs, but for those of the boxes' selection."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        for key in ours:
            if key != "detection_generator":
                found = _difference(theirs.get(key), ours[key], f"{path}.{key}" if path else key)
                if found:
                    return found
        return ""
    both = (list(v) if isinstance(v, tuple) else v for v in (theirs, ours))
    first, second = both
    return "" if first == second else path
