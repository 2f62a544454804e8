"""Reads what TFLite's `benchmark_model` (Android, Linux) prints with `--enable_op_profiling=true`.

Two forms are read: the table it prints, and the CSV that `--profiling_output_csv_file` writes. Both
hold a table of the operators in run order, with columns that differ a little between versions, and
after it the sum of a run. A file with the output of several runs, one after the other, is fine.

Not counted: the profile of the initialisation, other subgraphs, and what a delegate reports of its
inside when the delegate as a whole is an operator of the table too.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from neas_tf.common.errors import NeasError
from neas_tf.common.files import decode_text

_GRAPH = re.compile(r"Graph: \[(?P<path>[^\]]+)\]")
_THREADS = re.compile(
    r"Num threads: \[(?P<count>-?\d+)\]|#threads used for CPU inference: \[(-?\d+)\]"
)
_TITLE = re.compile(r"={10,} (?P<title>[^=]+?) ={10,}")
_REGULAR = "Operator-wise Profiling Info for Regular Benchmark Runs"
_INITIAL = "Profiling Info for Benchmark Initialization"
_SUBGRAPH = re.compile(r"Subgraph \(index: \d+\) profile:")
# With a comma where the locale has one; a comma before a space separates the columns of a CSV.
_NUMBER = r"[-+]?(?:\d+(?:[.,]\d+)?\.?|\.\d+)(?:[eE][-+]?\d+)?"
# first (and in older versions start before it), avg ms, %, cdf %, mem KB, times called, name
_TAIL = (
    rf"(?:{_NUMBER}SEP){{1,2}}(?P<avg>{_NUMBER})SEP[^\s;%]+%SEP[^\s;%]+%SEP{_NUMBER}SEP"
    r"(?P<times>\d+)SEP(?P<name>.*)"
)
_TEXT_ROW = re.compile(r"\t\s*(?P<type>[^\t]*)\t\s*" + _TAIL.replace("SEP", r"\t\s*"))
_CSV_ROW = re.compile(r"(?P<type>.*?), " + _TAIL.replace("SEP", ", "))
# What is left of them where an editor made spaces of tabs, or a spreadsheet wrote the CSV.
_SPACED_ROW = re.compile(r"\s*(?P<type>\S.*?)\s+" + _TAIL.replace("SEP", r"\s+"))
_POINT = _TAIL.replace("[.,]", "[.]").replace(r"[^\s;%]", r"[^\s,;%]")
_SHEET_ROW = re.compile(r"(?P<type>.*?)\s*[,;]\s*" + _POINT.replace("SEP", r"\s*[,;]\s*"))
_LONGEST = 4096  # characters of such a row
# What terminals obey: colours, titles.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_TIMINGS = re.compile(rf"Timings \(microseconds\): count=\d+ .*avg=(?P<avg>{_NUMBER})")
_AGREE = 0.05  # relative difference of the table's sum and the printed one


@dataclasses.dataclass(frozen=True)
class OpTime:
    """One operator of a profile.

    Attributes:
      type: such as `CONV_2D`, or what a delegate calls it.
      name: of its output.
      milliseconds: mean of one call.
      times: calls in a run, at least 1.
    """

    type: str
    name: str
    milliseconds: float
    times: int = 1


@dataclasses.dataclass(frozen=True)
class Profile:
    """The profile of one model.

    Attributes:
      model: path of the model as printed; '' in a CSV file, which does not say.
      ops: in run order.
      threads: as printed, None where it is not.
      printed_us: the mean sum of a run as printed, None where it is not.
    """

    model: str
    ops: tuple[OpTime, ...]
    threads: int | None = None
    printed_us: float | None = None

    @property
    def nanoseconds(self) -> float:
        """Mean latency of a run: all operators together."""
        if self.printed_us is not None:
            return 1e3 * self.printed_us
        return 1e6 * sum(op.milliseconds * op.times for op in self.ops)


def parse_profiles(text: str, where: str = "profile") -> list[Profile]:
    """The profiles in a string, of one or several runs of `benchmark_model`.

    Args:
      text: what was printed, or the content of a CSV file.
      where: the file's name, for messages.

    Raises:
      NeasError: when there is none, a run has no table of operators, or a table's rows do not add
        up to the sum after it.
    """
    if "\0" in text:
        raise NeasError(
            f"{where} holds zero bytes; expected a text file, encoded as UTF-8 or UTF-16."
        )
    text = _ESCAPES.sub("", text)
    # Old Macs' ends of lines, or Windows'.
    text = text.replace("\r", "") if "\n" in text else text.replace("\r", "\n")
    starts = [match.start() for match in _GRAPH.finditer(text)]
    if not starts:
        return [_parse_run(text, where)]
    ends = [*starts[1:], len(text)]
    # What precedes the first graph (the number of threads) belongs to it.
    starts[0] = 0
    return [_parse_run(text[a:b], where) for a, b in zip(starts, ends, strict=True)]


def _parse_run(text: str, where: str) -> Profile:
    graph = _GRAPH.search(text)
    model = graph["path"] if graph else ""
    title = f"{where}: {model or 'the file'}"
    if _REGULAR in text:
        text_of_runs = text[text.index(_REGULAR) :]
    elif _INITIAL in text:
        text_of_runs = ""
    else:  # older versions print no headings
        text_of_runs = text
    ops, printed = _primary_table(text_of_runs)
    if not ops:
        raise NeasError(
            f"{title} has no table of operators in run order; expected the output of "
            "benchmark_model with --enable_op_profiling=true."
        )
    threads = _THREADS.search(text)
    count = threads and next(int(group) for group in threads.groups() if group is not None)
    profile = Profile(model, tuple(ops), count or None, printed)
    added = 1e3 * sum(op.milliseconds * op.times for op in ops)
    rounding = 0.5 * len(ops) + 1.0  # rows are in ms with three decimals
    if printed is not None and abs(added - printed) > _AGREE * printed + rounding:
        raise NeasError(
            f"{title}: its {len(ops)} operators take {added:,.0f} µs together, but the sum after "
            f"the table is {printed:,.0f} µs; expected a whole table."
        )
    return profile


def _primary_table(text: str) -> tuple[list[OpTime], float | None]:
    """The rows in run order of the primary graph, and the printed mean of their sum in µs."""
    ops: list[OpTime] = []
    inside = False
    for line in text.split("\n"):
        if match := _TITLE.search(line):
            if match["title"] == "Run Order" and ops:
                break  # of another subgraph, or of a delegate's inside
            inside = match["title"] == "Run Order"
        elif inside and not line.strip():
            inside = not ops
        elif inside:
            if row := _row(line):
                ops.append(_op(row))
        elif ops and (match := _TIMINGS.search(line)):
            return ops, _real(match["avg"])
        elif _SUBGRAPH.search(line) and ops:
            break
    return ops, None


def _row(line: str) -> re.Match[str] | None:
    bare = line.strip()
    row = _TEXT_ROW.search(line) or _CSV_ROW.fullmatch(bare)
    if row or len(bare) > _LONGEST:
        return row
    return _SPACED_ROW.fullmatch(bare) or _SHEET_ROW.fullmatch(bare)


def _op(row: re.Match[str]) -> OpTime:
    # 0 calls is what old versions print for 1.
    times = max(1, int(row["times"]))
    return OpTime(row["type"].strip(), row["name"].strip(), _real(row["avg"]), times)


def _real(text: str) -> float:
    return float(text.replace(",", "."))


def profile_files(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The files themselves, and the `.csv`, `.txt` and `.log` files of those that are folders."""
    result: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            kinds = (".csv", ".txt", ".log")
            found = sorted(
                p
                for p in path.iterdir()
                if p.suffix.lower() in kinds and not p.name.startswith(".")
            )
            if not found:
                raise NeasError(f"from_profile: folder {str(path)!r} holds no .csv, .txt or .log.")
            result += found
        else:
            result.append(path)
    return result


def read_latencies(
    paths: Iterable[str | os.PathLike[str]], known: Iterable[str]
) -> tuple[dict[str, float], set[int]]:
    """Latencies by model file, from the profiles of files and folders.

    Args:
      paths: see `profile_files`.
      known: names of the models' files, such as `probe_000.tflite`; a printed profile names its
        model, a CSV file must bear the model's name (`probe_000.csv`).

    Returns:
      ns by model file (the mean where one was profiled several times), and the numbers of threads
      that were printed.

    Raises:
      NeasError: for an unreadable file, a profile of another model, or no profile.
    """
    by_stem = {PurePosixPath(name).stem: name for name in known}
    values: dict[str, list[float]] = {}
    threads: set[int] = set()
    for path in profile_files(paths):
        where = f"from_profile: {str(path)!r}"
        # Windows' PowerShell writes UTF-16.
        try:
            text = decode_text(path.read_bytes(), where, "replace")
        except OSError as error:
            raise NeasError(f"{where} cannot be read ({error.strerror}).") from None
        for profile in parse_profiles(text, where):
            stem = PurePosixPath(profile.model).stem if profile.model else path.stem
            if stem not in by_stem:
                raise NeasError(
                    f"{where}: is of the model {stem!r}, expected those of the manifest "
                    f"({', '.join(sorted(by_stem)[:3])}, …)."
                )
            values.setdefault(by_stem[stem], []).append(profile.nanoseconds)
            if profile.threads is not None:
                threads.add(profile.threads)
    return {name: sum(found) / len(found) for name, found in values.items()}, threads
