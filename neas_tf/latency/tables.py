"""Latency tables: made from a folder of models, and kept per machine and space."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import check_writable
from neas_tf.common.folder_lock import lock_folder
from neas_tf.common.paths import resolve_user_path
from neas_tf.cost.cost_table import CostTable
from neas_tf.cost.latency_table import METRIC, LatencyTable, load_table, milliseconds
from neas_tf.latency.litert_benchmark import LiteRtBenchmark
from neas_tf.latency.measurement import Request, WorkFolder, list_models, make_table
from neas_tf.latency.timing import (
    TimingSettings,
    describe_machine,
    time_files,
    typical,
    versions,
    visit,
)
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

_FIT = 10  # ensembles that a kept table's prediction is fitted on


def measure(
    work: WorkFolder,
    settings: TimingSettings,
    device: str,
    benchmark: LiteRtBenchmark | None = None,
) -> LatencyTable:
    """Builds what is missing, times it, and makes the table; resumes where it was interrupted.

    Args:
      work: its folder holds nothing, or the beginning of the same measurement.
      settings: of the timing.
      device: in words.
      benchmark: times the files instead of this process.
    """
    how: dict[str, Any] = settings.to_dict()
    if benchmark is not None:
        how |= {"backend": "litert_benchmark", "flags": " ".join(benchmark.flags)}
    earlier = work.read_samples(how)
    build(work)
    done = sum(min(len(earlier.get(name, ())), settings.rounds) for name in work.files)
    with console.bar("measuring", len(work.files) * settings.rounds, "visits", done) as bar:
        samples = time_files(
            work.files,
            settings,
            earlier,
            on_visit=bar.update,
            on_round=lambda samples: work.write_samples(how, samples),
            visit_file=benchmark.visit if benchmark else visit,
        )
    latencies = {name: typical(times) for name, times in samples.items()}
    measurement = {**how, "source": "LiteRT", "versions": versions()}
    if benchmark is not None and benchmark.accelerators:
        measurement["accelerators"] = list(benchmark.accelerators)
        measurement["partly_accelerated"] = sorted(benchmark.partial)
    return make_table(work.request, work.models, latencies, device, measurement)


def build(work: WorkFolder) -> None:
    """Writes the models of a folder that are not there yet, with a progress bar."""
    work.check()
    work.folder.mkdir(parents=True, exist_ok=True)
    files = work.files.values()
    if not all(path.exists() for path in files):
        console.quiet_libraries()
        console.say("Starting TensorFlow …")
    with console.bar("models", len(work.models), "models") as bar:
        work.build(bar.update)


def cache_folder() -> Path:
    """Where tables are kept: `$XDG_CACHE_HOME/neas/latency`, or `~/.cache/neas/latency`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(root):  # as the specification of that variable says
        root = os.path.join(os.path.expanduser("~"), ".cache")
    return Path(root) / "neas" / "latency"


@functools.cache
def _device() -> str:
    return describe_machine()


def _path(
    space: SearchSpace,
    num_paths: int,
    threads: int,
    folder: str | os.PathLike[str] | None,
    quantize: str,
) -> Path:
    """The file of a table: of this machine, this LiteRT, this space and form."""
    facts = {
        "device": _device(),
        "litert": versions().get("ai-edge-litert", ""),
        "threads": threads,
        "quantize": quantize,
        "num_paths": num_paths,
        "space": space.fingerprint(),
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    root = Path(resolve_user_path(folder)) if folder is not None else cache_folder()
    return root / f"{digest}.json"


def find_table(
    space: SearchSpace,
    num_paths: int,
    threads: int = 1,
    folder: str | os.PathLike[str] | None = None,
    *,
    quantize: str = "none",
) -> Path | None:
    """The kept table of this machine and space, None where there is none that can be read.

    See `latency_table_for` for the arguments. Nothing is measured.
    """
    path = _path(space, num_paths, threads, folder, quantize)
    if not path.is_file():
        return None
    try:
        load_table(path).check_fits(space, num_paths)
    except NeasError as error:
        console.say(f"Measured again, as the kept one cannot be used: {error}")
        return None
    return path


def latency_table_for(
    space: SearchSpace,
    num_paths: int,
    threads: int = 1,
    folder: str | os.PathLike[str] | None = None,
    *,
    quantize: str = "none",
    settings: TimingSettings | None = None,
) -> Path:
    """This machine's latency table for a space; measured only where none is kept.

    Tables are kept by processor, cores, version of LiteRT, threads, quantization, space and K.

    Args:
      space: with its input size and classes.
      num_paths: K.
      threads: of LiteRT.
      folder: that keeps the tables; None takes `cache_folder()`.
      quantize: 'none' or 'int8', the form of the deployed graph.
      settings: of the timing, with the same threads; None takes the defaults.

    Returns:
      The path, for `search.latency_table`. An interrupted measurement continues with the next call.

    Raises:
      NeasError: for a folder that cannot be written, or settings that cannot be.
    """
    settings = settings or TimingSettings(threads)
    request = Request(space, num_paths, quantize)
    if settings.threads != threads:
        raise NeasError(
            f"threads: received {threads} with settings of {settings.threads}, expected the same."
        )
    found = find_table(space, num_paths, threads, folder, quantize=quantize)
    if found is not None:
        return found
    path = _path(space, num_paths, threads, folder, quantize)
    check_writable("folder of latency tables (XDG_CACHE_HOME)", path, "file")
    console.heading(
        "Latency",
        f"space {space.name!r} on this machine ({_device()}), {threads} thread{'s' * (threads > 1)}; "
        "once, then kept:",
        str(path),
    )
    work = WorkFolder(path.with_suffix(".work"), request, list_models(request, _FIT, 0))
    work.check()
    work.folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(work.folder):
        table = measure(work, settings, _device())
        table.save(path)
        console.say(f"   {attainable_text(table, space)}")
    work.remove()
    return path


def attainable_range(table: LatencyTable, space: SearchSpace) -> tuple[int, int]:
    """The smallest and the largest latency that a table predicts for a space's ensembles, in ns."""
    try:
        full = ShrunkSpace.full(space, table.num_paths)
    except NeasError:  # fewer operators than paths
        full = ShrunkSpace.full(space, table.num_paths, heterogeneous=False)
    return CostTable(space, table).attainable_range(full, METRIC)


def attainable_text(table: LatencyTable, space: SearchSpace) -> str:
    """The range for people."""
    low, high = attainable_range(table, space)
    paths = f"{table.num_paths} path{'s' * (table.num_paths > 1)}"
    return f"Ensembles with {paths} take {milliseconds(low)} to {milliseconds(high)}."
