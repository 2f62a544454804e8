"""Measures the operators of a space on this machine: the latency table of a search.

python -m neas_tf.measure_latency --output=lut.json --validate=32
python -m neas_tf.measure_latency --experiment=neas_cifar10 --config_file=configs/cifar10_cpu.yaml \
  --input_size=32 --num_classes=10 --quantize=int8 --output=lut_int8.json
"""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from neas_tf.commands.describe import parse_size
from neas_tf.common import command_line, console
from neas_tf.common.errors import NeasError, check, fail
from neas_tf.common.files import check_writable, told, write_bytes_atomic
from neas_tf.common.folder_lock import lock_folder
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.cost.latency_table import NANOSECONDS, LatencyTable, milliseconds
from neas_tf.latency.litert_benchmark import LiteRtBenchmark, split_flags
from neas_tf.latency.measurement import (
    MANIFEST,
    Request,
    WorkFolder,
    list_models,
    make_table,
    read_manifest,
)
from neas_tf.latency.phone_profile import read_latencies
from neas_tf.latency.tables import attainable_range, attainable_text, build, measure
from neas_tf.latency.timing import TimingSettings, describe_machine
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.zoo import load_space


def find_request(values: flags.FlagValues) -> Request:
    """The space, K and form that the flags name.

    Raises:
      NeasError: when they name a space twice, or none can be made of them.
    """
    named = bool(values.experiment or values.config_file or values.params_override)
    if named + bool(values.model_dir) + bool(values.space) > 1:
        raise NeasError(
            "Give one of --model_dir, --space, and --experiment with --config_file and "
            "--params_override."
        )
    num_paths = 2
    if values.model_dir:
        space, num_paths = _of_run(Path(resolve_user_path(values.model_dir)))
    elif named:
        space, num_paths = _of_config(values)
    else:
        space = load_space(values.space) if values.space else SearchSpace()
    changes: dict[str, Any] = {}
    if values.input_size is not None:
        changes["input_size"] = parse_size(values.input_size)
    if values.num_classes is not None:
        changes["num_classes"] = values.num_classes
    space = dataclasses.replace(space, **changes) if changes else space
    if values.num_paths is not None:
        num_paths = values.num_paths
    return Request(space, num_paths, values.quantize, values.seed)


def _of_run(folder: Path) -> tuple[SearchSpace, int]:
    from neas_tf.common.yaml_text import load_yaml_file

    path = folder / "params.yaml"
    check(path.is_file(), "model_dir", str(folder), "the folder of a run, with a params.yaml")
    value = load_yaml_file(path, "params.yaml")
    missing = [key for key in ("space", "num_paths") if key not in value]
    check(not missing, "model_dir", str(folder), f"a run whose params.yaml has {missing}")
    return SearchSpace.from_dict(value["space"]), value["num_paths"]


def _of_config(values: flags.FlagValues) -> tuple[SearchSpace, int]:
    """The space of an experiment; its data are opened only where they decide its shapes."""
    from neas_tf.config.parse import load_config
    from neas_tf.config.settings import search_space

    files = [name for text in values.config_file for name in text.split(",") if name]
    experiment = values.experiment or "neas_quickstart"
    config = load_config(experiment, files, values.params_override)
    space = config.space
    if values.input_size is not None:
        space.input_size = list(parse_size(values.input_size))
    if values.num_classes is not None:
        space.num_classes = values.num_classes
    if space.input_size and space.num_classes:
        space.input_channels = space.input_channels or config.data.input_channels or 3
        return search_space(space), config.num_paths
    from neas_tf import data
    from neas_tf.config.resolve import resolve_space

    try:
        return resolve_space(config, data.load(config.data)), config.num_paths
    except NeasError as error:
        raise NeasError(
            f"{str(error).rstrip('.')}; with --input_size and --num_classes no data are needed."
        ) from None


def summary(table: LatencyTable) -> str:
    """What a table says of itself, for people."""
    kind = "float32" if table.quantize == "none" else table.quantize
    lines = [
        f"{len(table.entries)} entries for space {table.made_for!r}, {kind}, {table.num_paths} "
        f"path{'s' * (table.num_paths > 1)}; {table.device}",
        f"  latency = {table.scale:.3f} · sum {'-' if table.constant < 0 else '+'} "
        f"{milliseconds(abs(table.constant))}",
    ]
    for name, found in (("fit", table.fit), ("validation", table.validation)):
        if found:
            lines.append(f"  {name}: {_errors(found)}")
    return "\n".join(lines) + "\n"


def advice(table: LatencyTable, space: SearchSpace, output: Path) -> str:
    """What bounds the space attains, and how a search gets one."""
    low, high = attainable_range(table, space)
    bound = (low + (high - low) / 3) / NANOSECONDS
    bound = math.ceil(bound * 1000) / 1000 if bound < 1 else math.ceil(bound * 100) / 100
    path = shlex.quote(str(output.absolute()))
    lines = [f"  {attainable_text(table, space)}"]
    if partial := table.measurement.get("partly_accelerated"):
        lines.append(f"  {len(partial)} of the models ran on the accelerator in part only")
    if low < high:
        lines.append("For a search, with a bound in this range:")
        lines.append(f"  --max_latency_ms={bound:g} --latency_table={path}")
    return "\n".join(lines)


def _errors(found: Mapping[str, Any]) -> str:
    tau = found["kendall_tau"]
    return (
        f"{len(found['ensembles'])} random ensembles, median error "
        f"{found['median_relative_error']:.1%}, largest {found['largest_relative_error']:.1%}, "
        f"Kendall's τ {'undefined' if tau is None else f'{tau:.3f}'}"
    )


def define_flags() -> None:
    """Defines the command's flags; only the command itself does, importers do not."""
    text, number = flags.DEFINE_string, flags.DEFINE_integer
    text("output", None, "The table to write, such as lut.json; a picture goes beside it.")
    text("experiment", None, "The space of an experiment: neas_quickstart, neas_cifar10, …")
    flags.DEFINE_multi_string("config_file", [], "YAML files over the experiment.")
    text("params_override", "", "Overrides over the files, as neas_tf.train takes them.")
    text("model_dir", None, "Instead: the space of a run.")
    text("space", None, "Instead: a YAML or JSON file with a space. Default: the paper's space.")
    text("input_size", None, "Image size, such as 224 or 192x256.")
    number("num_classes", None, "Number of classes.")
    number("num_paths", None, "K of the ensembles; default: the config's, or 2.", 1, 64)
    flags.DEFINE_enum("quantize", "none", ["none", "int8"], "The form that will be deployed.")
    number("threads", 1, "Threads of LiteRT.", 1)
    flags.DEFINE_enum(
        "clock", "", ["", "cpu", "wall"], "CPU time (1 thread only, its default) or wall time."
    )
    flags.DEFINE_enum(
        "backend",
        "python",
        ["python", "litert_benchmark"],
        "What times the models: LiteRT in this process, or its program litert-benchmark (wall time).",
    )
    text(
        "backend_flags", "", "For litert-benchmark, such as '--use_gpu --require_full_delegation'."
    )
    number("rounds", 20, "Visits of each model, all models in each round.", 1)
    number("repetitions", 10, "Runs of a model that are timed at a visit.", 1)
    number("fit", 10, "Random ensembles that the prediction is fitted on.", 0)
    number("validate", 0, "Other random ensembles to measure the prediction's error on.", 0)
    text("device", None, "The machine in words; default: cores and processor.")
    number("seed", 0, "Of the random ensembles and the order of visits.", 0)
    text("write_models", None, "Only write the models and their manifest into this folder.")
    text("models", None, "Folder of models and times; default: OUTPUT.work, removed at the end.")
    flags.DEFINE_multi_string(
        "from_profile",
        [],
        "Measure nothing: read what benchmark_model printed, or its CSV files (files or folders), "
        "of the models in --models, that --write_models wrote.",
    )
    flags.DEFINE_bool("overwrite", False, "Replace a table at --output.")


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    values = flags.FLAGS
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    output = values.output or values.write_models
    return command_line.exit_code("neas_tf.measure_latency", output, lambda: _run(argv, values))


def _run(argv: Sequence[str], values: flags.FlagValues) -> None:
    command_line.flags_only(argv)
    with told("latency table"):
        _make(values)


def _make(values: flags.FlagValues) -> None:
    for name in ("output", "write_models", "models"):
        check_local_path(name, getattr(values, name) or "")
    if values.write_models:
        _write_models(values)
        return
    check(bool(values.output), "output", values.output, "the file of the table, such as lut.json")
    output = Path(resolve_user_path(values.output))
    check_writable("output", output, "file")
    picture = output.with_suffix(".png")
    check(picture != output, "output", str(output), "a name like lut.json; the picture ends so")
    check_writable("output", picture, "file")
    for path in (output, picture):
        if path.exists() and not values.overwrite:
            raise NeasError(f"output: {str(path)!r} exists; expected a new file, or --overwrite.")
    if values.from_profile:
        table, space = _of_profiles(values)
        _write(table, output, space)
        return
    benchmark, clock = None, values.clock
    if values.backend == "litert_benchmark":
        check(clock != "cpu", "clock", clock, "wall with --backend=litert_benchmark")
        benchmark, clock = LiteRtBenchmark(split_flags(values.backend_flags)), "wall"
    elif values.backend_flags:
        fail("backend_flags", values.backend_flags, "--backend=litert_benchmark beside it")
    settings = TimingSettings(values.threads, clock, values.rounds, values.repetitions, values.seed)
    request = find_request(values)
    models = list_models(request, values.fit, values.validate)
    folder = resolve_user_path(values.models) if values.models else f"{output}.work"
    work = WorkFolder(Path(folder), request, models)
    check_writable("models", work.folder / MANIFEST)
    work.check()
    work.folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(work.folder):
        table = measure(work, settings, values.device or describe_machine(), benchmark)
        _write(table, output, request.space)
    if not values.models:
        work.remove()


def _write_models(values: flags.FlagValues) -> None:
    request = find_request(values)
    models = list_models(request, values.fit, values.validate)
    folder = Path(resolve_user_path(values.write_models))
    check_writable("write_models", folder / MANIFEST)
    build(WorkFolder(folder, request, models))
    print(f"{folder}: {len(models)} models and {MANIFEST}")


def _of_profiles(values: flags.FlagValues) -> tuple[LatencyTable, SearchSpace]:
    """The table of a device on which `benchmark_model` ran the models of --write_models."""
    for field in ("models", "device"):
        if not getattr(values, field):
            raise NeasError(
                f"{field}: received nothing, expected with --from_profile "
                + ("the folder of --write_models." if field == "models" else "the device's name.")
            )
    named = ("experiment", "config_file", "params_override", "model_dir", "space", "num_paths")
    for field in (*named, "input_size", "num_classes"):
        if getattr(values, field):
            raise NeasError(f"{field}: the space of --from_profile is that of the manifest.")
    request, models = read_manifest(Path(resolve_user_path(values.models)) / MANIFEST)
    paths = [resolve_user_path(p) for text in values.from_profile for p in text.split(",") if p]
    latencies, threads = read_latencies(paths, [model.file for model in models])
    measurement: dict[str, Any] = {"source": "benchmark_model", "clock": "wall"}
    if len(threads) > 1:
        raise NeasError(f"from_profile: the runs had {sorted(threads)} threads, expected one.")
    if threads:
        measurement["threads"] = threads.pop()
    table = make_table(request, models, latencies, values.device, measurement)
    return table, request.space


def _write(table: LatencyTable, output: Path, space: SearchSpace) -> None:
    table.save(output)
    if table.fit or table.validation:
        from neas_tf.report.charts import latency_picture

        write_bytes_atomic(output.with_suffix(".png"), latency_picture(table))
    console.show(f"{output}: {summary(table)}{advice(table, space, output)}")


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
