"""Refuses an experiment before anything of it is written, one sentence a mistake."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from official.core import exp_factory, input_reader

from neas_tf.common import console
from neas_tf.common.errors import NeasError, check, unknown_name
from neas_tf.config.parse import apply_override, check_known, load_file, read_overrides
from neas_tf.detection import experiments
from neas_tf.detection.backbone import architecture_and_space
from neas_tf.detection.initialising import (
    check_modules,
    check_same_ensemble,
    find_checkpoint,
    newest_checkpoint,
)
from neas_tf.detection.pictures import annotations as boxes_of_coco
from neas_tf.detection.pictures.records import check_content
from neas_tf.detection.task import padded_size
from neas_tf.ensemble.levels import check_levels, level_layers
from neas_tf.ensemble.store import read_info

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


def check_experiment(config: Any, mode: str, model_dir: str) -> boxes_of_coco.Annotations | None:
    """Checks sizes, levels, files, what they hold, and the folder, which may hold an earlier session.

    Args:
      config: of `load_experiment`.
      mode: of Model Garden's flag; `train…` needs the training records, `…eval…` the others.

    Returns:
      The annotations that evaluation will judge by, where there are any.
    """
    task = config.task
    check_sizes(task)
    check_backbone(task)
    boxes = check_annotations(task) if "eval" in mode and task.annotation_file else None
    if boxes and task.validation_data.tfds_name:
        file = task.annotation_file
        raise NeasError(
            f"task.annotation_file: received {file!r}, expected '' with "
            "task.validation_data.tfds_name, whose own boxes count."
        )
    parts = {"train_data": "train" in mode, "validation_data": "eval" in mode}
    for part, needed in parts.items():
        if needed:
            check_records(f"task.{part}", getattr(task, part), task.model.num_classes, boxes)
    if "train" in mode:
        check_initial(task)
        check_same_model(task, model_dir)
    return boxes


def check_annotations(task: Any) -> boxes_of_coco.Annotations:
    """Checks the annotation file, which Model Garden's evaluator will read as it is.

    Raises:
      NeasError: when that could not take it, or would misunderstand it; or when it has more
        classes than the detector.
    """
    field, path = "task.annotation_file", task.annotation_file
    found = tf.io.gfile.exists(path) and not tf.io.gfile.isdir(path)
    check(found, field, path, "an existing file of COCO annotations, or none")
    try:
        with tf.io.gfile.GFile(path, "rb") as stream:
            content = stream.read()
    except tf.errors.OpError as error:
        raise NeasError(f"{field}: {path!r} cannot be read ({error.message}).") from None
    boxes = boxes_of_coco.parse(content, path, field)
    if boxes.mended:
        raise NeasError(
            f"{boxes.mended[0]}, but Model Garden's evaluator reads the file as it is; write that "
            "into the file."
        )
    ids = [category["id"] for category in boxes.value["categories"]]
    classes = task.model.num_classes
    expected = f"at least {max(ids) + 1}, the largest class id of task.annotation_file plus 1"
    check(max(ids) < classes, "task.model.num_classes", classes, expected)
    if min(row["category_id"] for row in boxes.value["annotations"]) < 1:
        raise NeasError(
            f"{field}: {path!r} has boxes of category {min(ids)}; expected ids from 1, as 0 is the "
            "background."
        )
    words = [row["id"] for row in boxes.value["images"] if isinstance(row["id"], str)]
    check(not words, f"{field}: images", words[:1], "ids that are whole numbers")
    for text in boxes.left_out:
        console.say(f"warning: {text}.")
    return boxes


def check_sizes(task: Any) -> None:
    """Checks that the pyramid fits the images."""
    model, size, top = task.model, task.model.input_size, task.model.max_level
    good = len(size) == 3 and all(isinstance(n, int) and n > 0 for n in size)
    check(good and size[2] == 3, "task.model.input_size", size, "[height, width, 3]")
    expected = f"a level from task.model.min_level ({model.min_level}) to 10"
    check(1 <= model.min_level <= top <= 10, "task.model.max_level", top, expected)
    fits = all(n % 2**top == 0 for n in padded_size(task))
    expected = (
        f"multiples of {2**top} (stride of max_level {top}) where task.train_data.parser.pad "
    )
    check(fits, "task.model.input_size", size, f"{expected}is off")
    pad, expected = task.validation_data.parser.pad, "the value of task.train_data.parser.pad"
    check(task.train_data.parser.pad == pad, "task.validation_data.parser.pad", pad, expected)
    classes = model.num_classes
    check(classes > 1, "task.model.num_classes", classes, "the largest class id plus 1")


def check_backbone(task: Any) -> None:
    """Checks that a NEAS backbone has the levels that the pyramid wants."""
    backbone = task.model.backbone
    if backbone.type != "neas":
        return
    architecture, space = architecture_and_space(backbone.neas)
    name = architecture.name or architecture.key
    own, low, high = backbone.neas.min_level, task.model.min_level, task.model.max_level
    check_levels("task.model.min_level", low, space, name)
    expected = f"at most task.model.min_level, which is {low}"
    check(own <= low, "task.model.backbone.neas.min_level", own, expected)
    reaches = high >= min(max(level_layers(space)), low)
    check(reaches, "task.model.max_level", high, "at least task.model.min_level")


def check_records(
    field: str,
    data: Any,
    num_classes: int | None = None,
    boxes: boxes_of_coco.Annotations | None = None,
) -> None:
    """Checks that the patterns of `task.train_data` or `task.validation_data` match files, and looks into them.

    Args:
      num_classes: of the detector; None looks into none.
      boxes: of `check_annotations`, where there are any.

    Raises:
      NeasError: for a pattern without a file, no data at all, or records of something else.
    """
    if data.tfds_name:
        return
    pattern = data.input_path
    if not pattern:
        raise NeasError(f"{field}.input_path: received nothing, expected a pattern of TFRecords.")
    try:
        patterns = pattern.as_dict().values() if hasattr(pattern, "as_dict") else [pattern]
        files = [file for each in patterns for file in input_reader.match_files(each)]
    except (ValueError, tf.errors.OpError):
        files = []
    if not files or not all(tf.io.gfile.exists(file) for file in files):
        raise NeasError(
            f"{field}.input_path: no file matches {str(pattern)!r}; expected a pattern of "
            "TFRecords, such as 'coco/train*'."
        )
    if num_classes is None:
        return
    categories, images = {}, None
    if boxes is not None:
        categories = {row["id"]: row["name"] for row in boxes.value["categories"]}
        if not data.is_training:
            images = {row["id"] for row in boxes.value["images"]}
    check_content(field, data, files, num_classes, categories=categories, images=images)


def check_initial(task: Any) -> None:
    """Checks that the first weights are there and, where they are an ensemble's, the backbone's."""
    if not task.init_checkpoint:
        return
    found = find_checkpoint(task.init_checkpoint)
    if not isinstance(found, Path):
        return
    check_modules(task.init_checkpoint_modules)
    backbone = task.model.backbone
    ours = architecture_and_space(backbone.neas)[0] if backbone.type == "neas" else None
    check_same_ensemble(found, read_info(found), ours, backbone.type)


def check_same_model(task: Any, model_dir: str) -> None:
    """Refuses to resume from checkpoints of another model, which would be restored in part."""
    path = os.path.join(model_dir, PARAMS)
    if not newest_checkpoint(model_dir) or not os.path.isfile(path):
        return
    theirs = (load_file(path).get("task") or {}).get("model") or {}
    changed = _difference(theirs, task.model.as_dict())
    if changed:
        raise NeasError(
            f"model_dir: {model_dir!r} holds a run with another task.model.{changed}; expected "
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
