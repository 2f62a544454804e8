"""What the export commands share: flags, finding the model, errors as one line."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from neas_tf.common import command_line, console
from neas_tf.common.errors import NeasError, check
from neas_tf.common.normalisation import Normalisation
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.ensemble.store import LoadedInfo, load_model, load_weights, read_info
from neas_tf.export.artifacts import check_ending, check_output, read_label_file
from neas_tf.export.model_card import write_card
from neas_tf.export.tflite.outputs import check_calibrated, check_outputs
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_architecture

FLAGS = flags.FLAGS
# Where the retraining stage leaves its model, inside a model_dir.
MODEL_FOLDER = Path("retrain") / "model"
flags.disclaim_key_flags()  # --help shows these flags as the command's own

Exporter = Callable[..., dict[str, Any]]
Options = Callable[[LoadedInfo], dict[str, Any]]


def define_flags(default_output: str, values: flags.FlagValues = FLAGS) -> None:
    """Defines the flags of an export command in `values`."""
    text = functools.partial(flags.DEFINE_string, default=None, flag_values=values)
    number = functools.partial(flags.DEFINE_integer, flag_values=values)
    text("model_dir", help="Folder of a run whose retraining has finished.")
    text("output", help=f"What to write; default: MODEL_DIR/{default_output}.")
    text("arch", help="Instead of --model_dir: zoo name, JSON file or official list.")
    text("weights", help="With --arch: its weights, a .weights.h5 file.")
    text("labels", help="With --arch: text file with a class name a line.")
    number("input_size", 224, "With --arch: side of the input image in pixels.")
    number("num_classes", 1000, "With --arch: number of classes.")
    number("evaluate", 0, "Measure the accuracy before and after on so many test images.")
    text("evaluation_dataset", help="For --evaluate: 'run' (default), a folder or a TFDS name.")
    text("data_dir", help="Where TFDS data sets lie, when not where TFDS or the run has them.")
    if not default_output.endswith(".keras"):
        flags.DEFINE_list(
            "outputs",
            None,
            "Outputs beside the logits: of probabilities (the default, but for int8), disagreement (of "
            "the paths) and path_logits.",
            flag_values=values,
        )
        flags.DEFINE_bool(
            "calibrated",
            False,
            "Divide the logits by the temperature of a run with retrain.calibrate.",
            flag_values=values,
        )
    flags.DEFINE_bool(
        "overwrite", False, "Replace an earlier export at --output.", flag_values=values
    )


def find_model() -> tuple[LoadedInfo, Callable[[], Any]]:
    """What the model that the flags name is, and a function that loads it, without TensorFlow.

    Raises:
      NeasError: when the flags name none or two, or what they name is not there.
    """
    if bool(FLAGS.model_dir) == bool(FLAGS.arch):
        raise NeasError("Give either --model_dir, or --arch and --weights.")
    if FLAGS.model_dir:
        folder = Path(resolve_user_path(FLAGS.model_dir)) / MODEL_FOLDER
        if not folder.is_dir():
            raise NeasError(
                f"--model_dir: {FLAGS.model_dir!r} has no retrained model in {MODEL_FOLDER}; run "
                "the stage 'retrain' first."
            )
        return read_info(folder), lambda: load_model(folder)[0]
    check(bool(FLAGS.weights), "--weights", FLAGS.weights, "a .weights.h5 file beside --arch")
    weights = resolve_user_path(FLAGS.weights)
    space = SearchSpace.from_dict(
        {"input_size": FLAGS.input_size, "num_classes": FLAGS.num_classes}
    )
    names = read_labels(FLAGS.labels) if FLAGS.labels else map(str, range(space.num_classes))
    architecture = load_architecture(FLAGS.arch, space)
    check(os.path.isfile(weights), "--weights", FLAGS.weights, "an existing file")
    info = LoadedInfo(architecture, space, tuple(names), Normalisation())
    return info, lambda: load_weights(architecture, space, weights)


def read_labels(path: str) -> list[str]:
    """Class names of a text file, one a line."""
    return read_label_file(resolve_user_path(path), "--labels")


def find_output(default_output: str) -> Path:
    """Where to write."""
    if FLAGS.output:
        check_local_path("--output", FLAGS.output)
        is_file = bool(Path(default_output).suffix)
        if is_file and FLAGS.output.endswith("/"):
            raise NeasError(f"--output: received {FLAGS.output!r}, expected the name of a file.")
        return Path(resolve_user_path(FLAGS.output))
    check(bool(FLAGS.model_dir), "--output", FLAGS.output, "a path, when --model_dir is not given")
    return Path(resolve_user_path(FLAGS.model_dir)) / default_output


def test_images(info: LoadedInfo) -> dict[str, Any]:
    """The exporter's argument `test`, where --evaluate asks for it.

    Raises:
      NeasError: when there are no such data, or their classes are not the model's.
    """
    check(FLAGS.evaluate >= 0, "--evaluate", FLAGS.evaluate, "a number of images, or 0")
    if not FLAGS.evaluate:
        named = FLAGS.evaluation_dataset
        check(not named, "--evaluation_dataset", named, "none but with --evaluate")
        return {}
    from neas_tf.export.images import RUN, open_data, test_pixels

    name = FLAGS.evaluation_dataset or RUN
    known, other = name != RUN or bool(FLAGS.model_dir), "name an --evaluation_dataset"
    check(known, "--evaluate", FLAGS.evaluate, f"0 without --model_dir, or {other}")
    dataset = open_data(name, info, FLAGS.model_dir or "", FLAGS.data_dir or "")
    return {"test": test_pixels(dataset, FLAGS.evaluate, info)}


def run(exporter: str, default_output: str, options: Options | None = None) -> None:
    """Main program of an export command.

    Args:
      exporter: name of the function of `neas_tf.export.formats` that writes the file.
      default_output: relative to the model_dir.
      options: makes further arguments of the function, from the command's own flags.
    """
    define_flags(default_output)

    def start(argv: Sequence[str]) -> int:
        if not FLAGS["verbosity"].present:
            console.quiet_libraries()
        return main(argv, exporter, default_output, options)

    command_line.run(start)


def main(
    argv: Sequence[str], exporter: str, default_output: str, options: Options | None = None
) -> int:
    """Exports as the flags say; returns the exit code, 2 after bad input."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kind = exporter.removeprefix("export_")

    def work() -> None:
        command_line.flags_only(argv)
        output = find_output(default_output)
        info, load = find_model()
        check_ending(output, kind)
        check_output(output, FLAGS.overwrite)
        arguments = _outputs(info) if "outputs" in FLAGS else {}
        arguments |= (options(info) if options else {}) | test_images(info)
        from neas_tf.export import formats  # TensorFlow only now: a mistake is told at once

        export: Exporter = getattr(formats, exporter)
        report = export(load(), info, output, overwrite=FLAGS.overwrite, **arguments)
        run = Path(resolve_user_path(FLAGS.model_dir)) if FLAGS.model_dir else None
        card = write_card(output.absolute().parent, info, report["weights"], run, [output])
        print_report(output, report)
        print(f"{'model card':<13} {card}")

    return command_line.exit_code(f"export.to_{kind}", None, work)


def _outputs(info: LoadedInfo) -> dict[str, Any]:
    """The exporter's arguments `outputs` and `calibrated`, checked as far as the flags go."""
    if FLAGS.calibrated:
        check_calibrated(info)
    arguments: dict[str, Any] = {"calibrated": FLAGS.calibrated}
    if FLAGS.outputs is not None:
        ends = (FLAGS.quantize, FLAGS.input_type, FLAGS.output_type) if "quantize" in FLAGS else ()
        arguments["outputs"] = check_outputs(FLAGS.outputs, info.architecture.num_paths, *ends)
    return arguments


def print_report(output: Path, report: dict[str, Any]) -> None:
    """Prints what was written and how far it is from the Keras model."""
    for label, text in _report_rows(output, report):
        print(f"{label:<13} {text}")


def _report_rows(output: Path, report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    digest, parity = report["sha256"][:12], report["parity"]
    yield "wrote", f"{output} ({report['bytes'] / 1e6:.2f} MB, sha256 {digest})"
    yield "architecture", report["architecture"]
    amounts = report["macs"] / 1e6, report["params"] / 1e6
    yield "cost", "{:.1f} M MACs, {:.2f} M parameters".format(*amounts)
    yield "operations", _list(report.get("ops") or report.get("layers") or {})
    if "xnnpack_partitions" in report:
        islands = report.get("float_islands")
        text = "" if islands is None else f", float islands {_list(islands)}"
        yield "format", f"{report['quantize']}{text}"
        rest = _list(report["not_delegated"])
        yield "XNNPACK", f"{report['xnnpack_partitions']} partitions, outside of them {rest}"
    text = f"largest difference of logits {parity['max_abs_diff']:.2e} over {parity['examples']} "
    yield "parity", f"{text}images, same class {parity['agreement']:.0%}"
    if found := report.get("emulation"):
        text = f"largest difference from the trained graph {found['max_abs_diff']:.2e}"
        yield "emulation", f"{text}, same class {found['agreement']:.0%}"
    for name, kind in (("pruning_fine_tuning", "pruning"), ("fine_tuning", report["quantize"])):
        if found := report.get(name):
            text = f"{kind}: {found['steps']} steps of {found['batch_size']}"
            yield "fine-tuning", f"{text}, rate {found['rate']:g}, seed {found['seed']}"
    if found := report.get("pruning"):
        shares, size = found["layers"].values(), report["gzip_bytes"]
        layers = f"by layer {min(shares):.1%} to {max(shares):.1%}"
        text = f"{found['pruned_layers']:.1%} of the pruned kernels ({layers})"
        yield "zeros", f"{text}, {found['all_weights']:.1%} of all weights"
        yield "gzip", f"{size['before'] / 1e6:.2f} MB before, {size['after'] / 1e6:.2f} MB after"
    if found := report.get("accuracy"):
        text = f"{found['keras']:.2%} before, {found['exported']:.2%} after"
        yield "accuracy", f"{text}, on {found['examples']} test images"


def _list(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "none"
