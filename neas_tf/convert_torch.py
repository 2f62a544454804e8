"""Turns an official PyTorch checkpoint into a model of this project.

python -m neas_tf.convert_torch --arch=neas_s --torch_checkpoint=314.pth.tar --output=DIR
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags, logging

from neas_tf import command_line, zoo
from neas_tf.architecture import Architecture
from neas_tf.errors import NeasError, check, fail
from neas_tf.export_files import check_output
from neas_tf.model_store import RUN_MODEL, LoadedInfo, save_model
from neas_tf.normalisation import Normalisation
from neas_tf.paths import resolve_user_path
from neas_tf.space import SearchSpace
from neas_tf.torch_file import READERS, open_checkpoint
from neas_tf.torch_names import Layout, Place, arrays, differences, torch_layout, without_prefix
from neas_tf.torch_pickle import Tensor

# The output is laid out like a run, so that every command with --model_dir takes it.
SAVED_MODEL = Path("export") / "saved_model"


def read_checkpoint(
    path: str | os.PathLike[str],
    architecture: Architecture,
    space: SearchSpace,
    *,
    use_ema: bool = False,
    reader: str = "own",
) -> dict[Place, Any]:
    """Reads the weights of an architecture; needs neither TensorFlow nor (mostly) PyTorch.

    Args:
      path: a checkpoint in the authors' format.
      architecture: whose weights the file holds.
      space: that the architecture lies in.
      use_ema: takes the averaged weights, `state_dict_ema`.
      reader: 'own' or 'torch', see `open_checkpoint`.

    Returns:
      float32 arrays in our order of axes, by the place that each fills.

    Raises:
      NeasError: when the file is not sound, or not this architecture's; all that is missing,
        extra or misshapen is listed.
    """
    layout = torch_layout(architecture, space)
    with open_checkpoint(path, reader) as content:
        state = without_prefix(_state_dict(content, "state_dict_ema" if use_ema else "state_dict"))
        found = differences(layout, state)
        if found:
            raise NeasError(
                f"torch_checkpoint: the weights in {os.fspath(path)!r} are not those of "
                f"{architecture.name or architecture.key!r}{_fitting(space, state)}; "
                f"{'; '.join(found)}."
            )
        return dict(arrays(layout, state))


def model_from(weights: Mapping[Place, Any], architecture: Architecture, space: SearchSpace) -> Any:
    """The tf_keras model (trainable form, float32) with weights by place."""
    from neas_tf.ensemble import build_ensemble, model_slots

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
    reader: str = "own",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes a model folder and a SavedModel from a checkpoint.

    Args:
      checkpoint: in the authors' format.
      output: folder; gets `retrain/model` and `export/saved_model`, as a run has them.
      info: architecture, space, class names and normalisation of the model.
      use_ema: takes the averaged weights.
      reader: 'own' or 'torch'.
      overwrite: whether an earlier conversion of the same architecture may be replaced.

    Returns:
      The SavedModel's report.

    Raises:
      NeasError: for a file that does not fit or an output that must not be replaced.
    """
    folder, saved_model = Path(output) / RUN_MODEL, Path(output) / SAVED_MODEL
    if folder.exists() and not overwrite:
        raise NeasError(f"output: {str(folder)!r} is there already; --overwrite replaces it.")
    check_output(saved_model, overwrite)
    weights = read_checkpoint(
        checkpoint, info.architecture, info.space, use_ema=use_ema, reader=reader
    )
    from neas_tf.exporting import export_saved_model

    model = model_from(weights, info.architecture, info.space)
    save_model(folder, model, info.architecture, info.space, info.class_names, info.normalisation)
    return export_saved_model(model, info, saved_model, overwrite=overwrite)


def _state_dict(content: Any, key: str) -> Mapping[str, Tensor]:
    """The state dict under a key, or the file itself where it is nothing but one."""
    is_dict = isinstance(content, dict)
    if is_dict and key in content:
        state = content[key]
    elif is_dict and key == "state_dict" and _is_state_dict(content):
        state = content
    else:
        keys = [str(k) for k in content][:12] if is_dict else []
        has = f"a file with {', '.join(keys)}" if keys else "a file without any"
        raise NeasError(f"torch_checkpoint: received {has}, allowed is one with {key!r}.")
    if not _is_state_dict(state):
        raise NeasError(f"torch_checkpoint: {key!r} is not a mapping from names to tensors.")
    return state


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    )


def _fitting(space: SearchSpace, state: Mapping[str, Tensor]) -> str:
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
    flags.DEFINE_enum("reader", "own", READERS, "Who reads the file; torch needs PyTorch ≥ 2.6.")
    flags.DEFINE_string("labels", None, "Text file with a class name a line.")
    flags.DEFINE_integer("input_size", 224, "Side of the input image in pixels.")
    flags.DEFINE_integer("num_classes", 1000, "Number of classes.")
    flags.DEFINE_bool("overwrite", False, "Replace an earlier conversion at --output.")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    values = flags.FLAGS
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            fail("arguments", " ".join(argv[1:]), "flags only, such as --arch=neas_s")
        check(bool(values.arch), "arch", values.arch, "neas_s, neas_m or neas_l")
        for name in ("torch_checkpoint", "output"):
            check(bool(values[name].value), name, values[name].value, "a path")
        space = SearchSpace.from_dict(
            {"input_size": values.input_size, "num_classes": values.num_classes}
        )
        architecture = zoo.load_architecture(values.arch, space)
        labels = _labels(values.labels) if values.labels else map(str, range(space.num_classes))
        info = LoadedInfo(architecture, space, tuple(labels), Normalisation())
        output = Path(resolve_user_path(values.output))
        report = convert(
            resolve_user_path(values.torch_checkpoint),
            output,
            info,
            use_ema=values.use_ema,
            reader=values.reader,
            overwrite=values.overwrite,
        )
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"model        {output / RUN_MODEL}")
    print(f"saved model  {output / SAVED_MODEL} ({report['bytes'] / 1e6:.1f} MB)")
    print(f"cost         {report['macs']:,} MACs, {report['params']:,} parameters")
    print(f"parity       SavedModel − model ≤ {report['parity']['max_abs_diff']:.1e}")
    return 0


def _labels(path: str) -> list[str]:
    try:
        return Path(resolve_user_path(path)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NeasError(f"labels: {path!r} cannot be read ({error}).") from None


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
