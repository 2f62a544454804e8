"""Tests an ensemble: accuracy, calibration and disagreement of its paths and of their mean logits.

python -m neas_tf.evaluate --model_dir=RUN --output=test.json
python -m neas_tf.evaluate --model_dir=RUN --compare=SINGLE
python -m neas_tf.evaluate --model=FOLDER --data=source=tfds,name=imagenet2012,test_split=validation
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from neas_tf.common import command_line, console
from neas_tf.common.class_names import compare_classes
from neas_tf.common.errors import NeasError, check, fail
from neas_tf.common.files import check_writable, write_json_atomic
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble import store
from neas_tf.ensemble.store import MODEL_FILE, RUN_MODEL, LoadedInfo, read_info
from neas_tf.uncertainty.measures import COLUMNS, DISAGREEMENT, Uncertainty, cells, rows_of

if TYPE_CHECKING:
    from neas_tf.data import DataConfig, DatasetInfo

FORMAT = "neas-evaluation/1"


def model_folder(model_dir: str | None, model: str | None) -> Path:
    """The model folder that the flags name.

    Raises:
      NeasError: when they name none or two, or there is none.
    """
    if model_dir and not model:
        folder = Path(resolve_user_path(model_dir)) / RUN_MODEL
    elif model and not model_dir:
        folder = Path(resolve_user_path(model))
    else:
        raise NeasError("Give either --model_dir or --model.")
    if not (folder / MODEL_FILE).is_file():
        where = "no retrained model yet" if model_dir else f"no {MODEL_FILE}"
        raise NeasError(f"{'model_dir' if model_dir else 'model'}: {str(folder)!r} has {where}.")
    return folder


def data_config(
    info: LoadedInfo,
    run: Path | None,
    config_files: Sequence[str],
    overrides: Sequence[str | Mapping[str, Any]],
) -> DataConfig:
    """What to test on: the run's data, then the files, then the overrides.

    Settings that name a `source` start afresh, without the run's. Size, channels and
    normalisation of the images are the model's. The centre crop is 0.875 by default.

    Args:
      info: of the model.
      run: folder with `params.yaml`, or None.
      config_files: YAML files with settings of `DataConfig`, at the top or under `data`.
      overrides: `key=value,…`, a YAML mapping or a YAML file each.

    Raises:
      NeasError: for unknown settings, or when nothing says which data.
    """
    from neas_tf.config.parse import check_known, load_file, parse_override
    from neas_tf.data import DataConfig

    given = [load_file(path) for path in config_files]
    given += [parse_override(text) for text in overrides]
    given = [value["data"] if isinstance(value.get("data"), dict) else value for value in given]
    if run is not None and (run / "params.yaml").is_file():
        given.insert(0, load_file(str(run / "params.yaml")).get("data") or {})
    starts = [i for i, value in enumerate(given) if "source" in value]
    if not starts:
        raise NeasError("data: received no source, expected --data=source=…,… (see --help).")
    config = DataConfig()
    for value in given[starts[-1] :]:
        check_known(value, config, "data.")
        try:
            config.override(value, is_strict=True)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise NeasError(f"data: {' '.join(str(error).split())}.") from None
    if not any("test_fraction" in value for value in given[starts[-1] :]):
        config.test_fraction = 0.0  # a folder of pictures that nobody has trained on
    space, size = info.space, list(config.input_size)
    wanted = list(space.input_size)
    check(size in ([], wanted), "data.input_size", size, f"the model's {wanted} or none")
    channels = config.input_channels
    fits = channels in (0, space.input_channels)
    check(fits, "data.input_channels", channels, f"the model's {space.input_channels} or none")
    config.override(
        {
            "input_size": wanted,
            "input_channels": space.input_channels,
            "mean": list(info.normalisation.mean),
            "std": list(info.normalisation.std),
        },
        is_strict=True,
    )
    part = {"tfrecord": "test_pattern", "tfds": "test_split"}.get(config.source, "source")
    if not getattr(config, part):
        fail(f"data.{part}", getattr(config, part), "that of a test part")
    if config.source == "tfrecord" and not config.num_classes and not config.class_names:
        config.num_classes = space.num_classes
    return config


def check_classes(info: LoadedInfo, data_info: DatasetInfo) -> str:
    """Compares the model's classes with the data's.

    Returns:
      A warning, or '' when there is nothing to say.

    Raises:
      NeasError: when their number differs, or a name of both stands for another label.
    """
    return compare_classes(info.class_names, data_info.class_names, data_info.name)


def evaluate_folder(
    folder: Path, config: DataConfig, batch_size: int, run: Path | None = None
) -> dict[str, Any]:
    """Tests the model in a folder.

    Args:
      folder: of the model.
      config: the data.
      batch_size: images of one forward pass.
      run: folder of the run whose data they are; the warning tells what has changed of them.

    Returns:
      A mapping with `format`, `model`, `architecture`, `macs`, `data`, `test_examples`, `paths` (each
      with `top1` and, for more than 5 classes, `top5`), `ensemble` likewise, `uncertainty` (of
      `Uncertainty.to_dict`), and `warning`.

    Raises:
      NeasError: when model and data do not go together, or the data are damaged.
    """
    import tensorflow as tf

    from neas_tf import data
    from neas_tf.data.reading.contents import contents
    from neas_tf.ensemble.store import load_model
    from neas_tf.training.accuracy import evaluate

    data_info = data.load(config, test_only=True)
    warning = check_classes(read_info(folder), data_info)
    changed = run and data.changed_since(
        run / "data.json", contents(data_info.class_names, data_info.files)
    )
    if changed and not warning:
        warning = f"warning: the data are not those of the run any more ({changed})."
    model, info = load_model(folder)
    sure = Uncertainty(info.architecture.num_paths, info.temperature)
    try:
        result = evaluate(
            model, data_info, "test", batch_size, lambda _, labels, logits: sure.add(labels, logits)
        )
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        reason = " ".join(str(error.message).split())[:400]
        raise NeasError(f"data: {data_info.name!r} cannot be read ({reason}).") from None
    top1 = [*result["path_accuracies"], result["ensemble_accuracy"]]
    top5 = [*result["path_top5"], result["top5"]] if "top5" in result else [None] * len(top1)
    rows = [
        {"top1": a} if b is None else {"top1": a, "top5": b}
        for a, b in zip(top1, top5, strict=True)
    ]
    return {
        "format": FORMAT,
        "model": str(folder),
        "architecture": info.architecture.key,
        "macs": CostTable(info.space).cost(info.architecture).macs,
        "data": {
            "name": data_info.name,
            "source": config.source,
            "center_crop_fraction": config.center_crop_fraction,
            "input_shape": list(data_info.input_shape),
        },
        "test_examples": result["test_examples"],
        "paths": rows[:-1],
        "ensemble": rows[-1],
        "uncertainty": sure.to_dict(),
        "warning": warning,
    }


def format_text(result: dict[str, Any]) -> str:
    """The result as a table, with the network that it is compared with, if any."""
    height, width, _ = result["data"]["input_shape"]
    tops = ["top-1", "top-5"] if "top5" in result["ensemble"] else ["top-1"]
    lines = [
        f"model  {result['model']}",
        f"       {result['architecture']}, {console.short_count(result['macs'])} MACs",
        f"data   {result['data']['name']}: {result['test_examples']:,} images at {height}×{width}",
        "",
        _line("", [*tops, *COLUMNS[1:]], tops),
    ]
    other = result.get("compared")
    for prefix, tested in (("", result), ("compared: ", other or {})):
        shown = [
            *tested.get("paths", ()),
            *[tested.get("ensemble")] * 2,
        ]  # a second time calibrated
        if prefix and len(shown) == 3:  # a single network: its path is all of it
            shown = shown[:1]
        for (name, row), top in zip(
            rows_of(tested["uncertainty"]).items() if tested else (), shown, strict=False
        ):
            told = [f"{100 * value:.2f} %" for value in top.values()]
            label = "compared" if prefix and len(shown) == 1 else f"{prefix}{name}"
            lines.append(_line(label, [*told, *cells(row)[1:]], tops))
    if other:
        macs = console.short_count(other["macs"])
        lines += ["", f"compared with {other['model']}: {macs} MACs, {other['architecture']}"]
    found = result["uncertainty"]["disagreement"]
    if found:
        told = ["–" if found[n] is None else f"{found[n]:.4f}" for n in DISAGREEMENT]
        lines += [
            "",
            f"disagreement of the paths, in nats: {told[0]} where the ensemble is right, {told[1]} "
            f"where it errs; finds errors with an AUROC of {told[2]}",
        ]
    return "\n".join(lines) + "\n"


def _line(name: str, cells: Sequence[str], tops: Sequence[str]) -> str:
    widths = [9] * len(tops) + [7] * (len(cells) - len(tops))
    texts = (f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
    return f"  {name:18}" + "".join(texts)


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    flags.DEFINE_string("model_dir", None, "Folder of a run, or of a converted checkpoint.")
    flags.DEFINE_string("model", None, "Instead: a model folder, with model.json and weights.")
    flags.DEFINE_multi_string(
        "config_file", [], "YAML files with settings of the data, at the top or under 'data'."
    )
    flags.DEFINE_multi_string(
        "data",
        [],
        "The data: source=tfds,name=imagenet2012,test_split=validation or "
        "source=image_folder,data_dir=FOLDER or source=tfrecord,test_pattern=GLOB,label_offset=1; "
        "or a YAML mapping or file. Without a source, the run's own data with these changes.",
    )
    flags.DEFINE_string(
        "compare",
        None,
        "Another run's or model's folder, such as a single network of as many MACs.",
    )
    flags.DEFINE_string("output", None, "A file for the result as JSON.")
    flags.DEFINE_integer("batch_size", 100, "Images of one forward pass.", 1)
    flags.DEFINE_integer("threads", 0, "Threads of TensorFlow; 0 takes all cores.", 0)
    flags.DEFINE_enum("format", "text", ["text", "json"], "What to print.")


def compared_folder(path: str | None, info: LoadedInfo) -> Path | None:
    """The folder of the model that `--compare` names, whose classes are the model's."""
    if path is None:
        return None
    folder = store.model_folder(path)
    if folder is None:
        fail("--compare", path, "the folder of a run with a retrained model, or of a model")
    classes = read_info(folder).space.num_classes
    expected = f"a model of {info.space.num_classes} classes as the one that is tested"
    check(classes == info.space.num_classes, "--compare", f"{path} of {classes} classes", expected)
    return folder


def _output(path: str | None) -> Path | None:
    if path is None:
        return None
    check_local_path("--output", path)
    output = Path(resolve_user_path(path))
    check_writable("--output", output, "file")
    return output


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    return command_line.exit_code("neas_tf.evaluate", None, lambda: _run(argv))


def _run(argv: Sequence[str]) -> None:
    values = flags.FLAGS
    command_line.flags_only(argv)
    folder = model_folder(values.model_dir, values.model)
    info = read_info(folder)
    run = Path(resolve_user_path(values.model_dir)) if values.model_dir else None
    other, output = compared_folder(values.compare, info), _output(values.output)
    command_line.start_tensorflow(values.threads)
    config = data_config(info, run, values.config_file, values.data)
    own = None if values.config_file or values.data else run
    result = evaluate_folder(folder, config, values.batch_size, own)
    if other is not None:
        config = data_config(read_info(other), run, values.config_file, values.data)
        result["compared"] = evaluate_folder(other, config, values.batch_size)
    if result["warning"]:
        print(result["warning"], file=sys.stderr)
    if output is not None:
        write_json_atomic(output, result)
    text = json.dumps(result, indent=2) if values.format == "json" else format_text(result)
    console.show(text.removesuffix("\n"))


if __name__ == "__main__":
    define_flags()
    command_line.run(main, printed=True)
