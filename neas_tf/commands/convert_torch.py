"""Turns an official PyTorch checkpoint into a model of this project.

python -m neas_tf.convert_torch --arch=neas_s --torch_checkpoint=314.pth.tar --output=DIR
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from neas_tf.common import command_line, console
from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import temporary_folder, told
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.ensemble.store import (
    RUN_MODEL,
    LoadedInfo,
    check_replaceable,
    replace_path,
    save_model,
)
from neas_tf.ensemble.torch_file import load_checkpoint
from neas_tf.ensemble.torch_weight_names import (
    Layout,
    Place,
    arrays,
    differences,
    torch_layout,
    without_prefix,
)
from neas_tf.export.artifacts import check_output, labels_text, put_in_place, read_label_file
from neas_tf.space import zoo
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

# The output is laid out like a run, so that every command with --model_dir takes it.
SAVED_MODEL = Path("export") / "saved_model"
# Keys of weights and of averaged weights in the checkpoints of training programs; timm's first.
_WEIGHTS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module"),
    *("weights", "params"),
)
_AVERAGED = (
    *("state_dict_ema", "ema_state_dict", "model_ema", "ema_model", "ema_state", "ema"),
    "params_ema",
)
_NO_WEIGHTS = ("_extra_state", "num_batches_tracked")  # these may be no tensors


def read_checkpoint(
    path: str | os.PathLike[str],
    architecture: Architecture,
    space: SearchSpace,
    *,
    use_ema: bool = False,
) -> dict[Place, np.ndarray]:
    """Reads the weights of an architecture; needs PyTorch, but not TensorFlow.

    Args:
      path: a checkpoint in the authors' format.
      architecture: whose weights the file holds.
      space: that the architecture lies in.
      use_ema: takes the averaged weights, `state_dict_ema`.

    Returns:
      float32 arrays in our order of axes, by the place that each fills.

    Raises:
      NeasError: when the file is not sound, or not this architecture's; it counts and begins to
        list what is missing, extra or misshapen, and says whose the weights are where that shows.
    """
    layout = torch_layout(architecture, space)
    state = without_prefix(_state_dict(load_checkpoint(path), use_ema))
    found = differences(layout, state)
    if not found:
        return dict(arrays(layout, state))
    where = f"torch_checkpoint: the weights in {_end(os.fspath(path))!r} are"
    name = architecture.name or architecture.key
    own = _with_own_classes(space, state)
    if not differences(torch_layout(architecture, own), state):
        raise NeasError(
            f"{where} for {own.num_classes} classes, expected {space.num_classes}; "
            f"--num_classes={own.num_classes} takes them."
        )
    other = _fitting(own, state)
    if other and own != space:
        other += f" with {own.num_classes} classes"
    raise NeasError(f"{where} not those of {_end(name)!r}{other}; {'; '.join(found)}.")


def model_from(
    weights: Mapping[Place, np.ndarray], architecture: Architecture, space: SearchSpace
) -> Any:
    """The tf_keras model (trainable form, float32) with weights by place."""
    from neas_tf.ensemble.model import build_ensemble, model_slots

    model = build_ensemble(architecture, space, dtype="float32")
    slots = [(slot.part, slot.layer, slot.path, slot.role) for slot in model_slots(model)]
    if set(slots) != set(weights):
        raise NeasError(f"weights: received others than those of {architecture.key!r}.")
    model.set_weights([weights[slot] for slot in slots])
    return model


def convert(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    info: LoadedInfo,
    *,
    use_ema: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a model folder and a SavedModel from a checkpoint.

    Args:
      checkpoint: in the authors' format.
      output: folder; gets `retrain/model` and `export/saved_model`, as a run has them.
      info: architecture, space, class names and normalisation of the model.
      use_ema: takes the averaged weights.
      overwrite: whether an earlier conversion of the same architecture may be replaced.

    Returns:
      The SavedModel's report.

    Raises:
      NeasError: for a file that does not fit or an output that must not be replaced. Whatever ends
        a conversion, the output is as it was before.
    """
    check_local_path("output", output)
    output = Path(output)
    folder, saved_model = output / RUN_MODEL, output / SAVED_MODEL
    if folder.exists() and not overwrite:
        raise NeasError(f"output: {str(folder)!r} is there already; --overwrite replaces it.")
    check_replaceable(folder, info)
    check_output(saved_model, overwrite)
    weights = read_checkpoint(checkpoint, info.architecture, info.space, use_ema=use_ema)
    from neas_tf.export.formats import export_saved_model

    model = model_from(weights, info.architecture, info.space)
    parts = (info.architecture, info.space, info.class_names, info.normalisation)
    beside = output / "conversion" if output.is_dir() else output
    with told(f"output: {str(output)!r}"), temporary_folder(beside) as temporary:
        new = temporary / "new"
        try:
            save_model(new / RUN_MODEL, model, *parts)
            report = export_saved_model(model, info, new / SAVED_MODEL)
        except NeasError as error:
            raise NeasError(str(error).replace(str(new), str(output))) from None
        if not output.exists():
            os.rename(new, output)
            return report
        # The rest of an output that is there stays.
        with temporary_folder(folder) as place:
            os.rename(new / RUN_MODEL, place / folder.name)
            replace_path(place / folder.name, folder)
        with temporary_folder(saved_model) as place:
            os.rename(new / SAVED_MODEL, place / saved_model.name)
            put_in_place(place / saved_model.name, saved_model, report, labels_text(info))
    return report


def _state_dict(content: Any, use_ema: bool) -> Mapping[str, np.ndarray]:
    """The state dict under one of the keys that programs use, or the file itself if it is one."""
    if not isinstance(content, dict):
        raise NeasError("torch_checkpoint: received a file without any names, expected a dict.")
    keys = _AVERAGED if use_ema else _WEIGHTS
    if not use_ema and _is_state_dict(content):
        return _tensors(content)
    found = _find(content, keys)
    if found is not None:
        return _tensors(found)
    there = [key for key in keys if key in content]
    if there:
        raise NeasError(f"torch_checkpoint: {there[0]!r} is not a mapping from names to tensors.")
    names = [_end(str(key)) for key in content]
    has = f"{', '.join(names[:8])}{', …' * (len(names) > 8)}" if names else "nothing in it"
    averaged = not use_ema and _find(content, _AVERAGED) is not None
    hint = "; --use_ema takes its averaged weights" if averaged else ""
    raise NeasError(
        f"torch_checkpoint: received a file with {has}, expected one with {keys[0]!r}{hint}."
    )


def _find(content: Mapping, keys: Sequence[str], depth: int = 3) -> Mapping | None:
    """The first state dict under the keys; programs that keep a model with more nest them."""
    for key in keys:
        value = content.get(key)
        if _is_state_dict(value):
            return value
        if isinstance(value, dict) and depth:
            inner = _find(value, _WEIGHTS, depth - 1)
            if inner is not None:
                return inner
    return None


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(isinstance(k, str) for k in value)
        and any(isinstance(v, np.ndarray) for v in value.values())
        and all(isinstance(v, np.ndarray) or k.endswith(_NO_WEIGHTS) for k, v in value.items())
    )


def _tensors(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: value for name, value in state.items() if isinstance(value, np.ndarray)}


def _end(text: str) -> str:
    """As much of a string as a message has place for."""
    return text if len(text) <= 80 else f"…{text[-79:]}"


def _with_own_classes(space: SearchSpace, state: Mapping[str, np.ndarray]) -> SearchSpace:
    """The space with as many classes as the weights have."""
    try:
        return dataclasses.replace(space, num_classes=state["classifiers.0.weight"].shape[0])
    except (KeyError, IndexError, NeasError):  # none, a number alone, or no sound count
        return space


def _fitting(space: SearchSpace, state: Mapping[str, np.ndarray]) -> str:
    """Says which architecture of the zoo the weights do belong to, if any."""
    for name in zoo.zoo_names():
        try:
            layout: Layout = torch_layout(zoo.load_architecture(name), space)
        except NeasError:
            continue
        if not differences(layout, state):
            return f" but those of {name!r}"
    return ""


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_string("arch", None, "neas_s, neas_m, neas_l, or an architecture in any form.")
    flags.DEFINE_string("torch_checkpoint", None, "The PyTorch file, such as 314.pth.tar.")
    flags.DEFINE_string("output", None, "Folder to write; laid out like a run's model_dir.")
    flags.DEFINE_bool("use_ema", False, "Take the averaged weights, state_dict_ema.")
    flags.DEFINE_string("labels", None, "Text file with a class name a line.")
    flags.DEFINE_integer("input_size", 224, "Side of the input image in pixels.")
    flags.DEFINE_integer("num_classes", 1000, "Number of classes.")
    flags.DEFINE_bool("overwrite", False, "Replace an earlier conversion at --output.")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    console.quiet_libraries()
    return command_line.exit_code("neas_tf.convert_torch", None, lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    command_line.flags_only(argv)
    check(bool(values.arch), "arch", values.arch, "neas_s, neas_m or neas_l")
    for name in ("torch_checkpoint", "output"):
        check(bool(values[name].value), name, values[name].value, "a path")
    space = SearchSpace.from_dict(
        {"input_size": values.input_size, "num_classes": values.num_classes}
    )
    architecture = zoo.load_architecture(values.arch, space)
    labels = [str(number) for number in range(space.num_classes)]
    if values.labels:
        labels = read_label_file(resolve_user_path(values.labels))
    info = LoadedInfo(architecture, space, tuple(labels), Normalisation())
    check_local_path("output", values.output)
    output = Path(resolve_user_path(values.output))
    report = convert(
        resolve_user_path(values.torch_checkpoint),
        output,
        info,
        use_ema=values.use_ema,
        overwrite=values.overwrite,
    )
    print(f"model        {output / RUN_MODEL}")
    print(f"saved model  {output / SAVED_MODEL} ({report['bytes'] / 1e6:.1f} MB)")
    print(f"cost         {report['macs']:,} MACs, {report['params']:,} parameters")
    print(f"parity       SavedModel − model ≤ {report['parity']['max_abs_diff']:.1e}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
