"""Latency of NEAS's ensembles and of other mobile networks in LiteRT, in one interleaved run.

    python -m benchmarks.tflite_latency --output=latency.json --plot=latency.png
    python -m benchmarks.tflite_latency --models=neas_s,efficientnet_b0 --rounds=5

LiteRT with XNNPACK, batch 1, random weights; float32, and full-integer int8 after training. Each
network is measured as float32 and as int8, and all of them take turns in every round. With one
thread the time is the processor's, with more it is that on the clock. `neas_s_plain` is NEAS-S
without the rewrites for mobile, `neas_s_separate` its paths as networks of their own, rewritten
too, one after another: what the ensemble would cost without a shared trunk.

The first run converts (minutes); the files stay in the folder `--cache`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.parts import command, timing
from benchmarks.parts.networks import FORMATS, Network, caller, is_prepared, networks, prepare
from neas_tf.common.console import bar, native_noise_off, quiet_libraries, say
from neas_tf.common.errors import NeasError, check
from neas_tf.common.files import read_json
from neas_tf.common.paths import resolve_user_path

FORMAT = "neas-tflite-latency/1"
REFERENCE = "efficientnet_b0"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code, 2 after bad input."""
    known = networks()
    parser = command.parser(__doc__)
    parser.add_argument("--models", default=",".join(known), help="with commas")
    parser.add_argument("--formats", default=",".join(FORMATS), help="with commas")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3, help="invocations in a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plot", default="", help="PNG file: latency against MACs")
    parser.add_argument("--cache", default="runs/tflite_latency", help="folder of converted files")
    args = parser.parse_args(arguments)

    def work() -> None:
        chosen = command.choose("--models", args.models, known)
        formats = command.choose("--formats", args.formats, dict.fromkeys(FORMATS))
        command.check_counts(args, rounds=1, runs=1, threads=1)
        check(bool(args.cache), "--cache", args.cache, "a folder")
        _check_replaceable(args.output, args.plot)
        quiet_libraries()
        report = measure(
            list(chosen.values()),
            Path(resolve_user_path(args.cache)),
            formats=list(formats),
            rounds=args.rounds,
            runs=args.runs,
            threads=args.threads,
        )
        command.write_report(report, args.output, "tflite_latency", arguments)
        if args.plot:
            from benchmarks.parts.latency_plot import draw

            command.write_plot(draw(report), args.plot)
        say(table(report))

    return command.exit_code(work)


def _check_replaceable(output: str, plot: str) -> None:
    """Refuses to write over what an earlier run of this command did not write."""
    path = Path(resolve_user_path(output))
    if output and path.exists():
        try:
            ours = read_json(path).get("format") == FORMAT
        except (NeasError, AttributeError):
            ours = False
        check(ours, "--output", str(path), "a new file, or one that this command wrote")
    if plot:
        check(plot.endswith(".png"), "--plot", plot, "a name that ends with .png")
        check(not Path(resolve_user_path(plot)).is_dir(), "--plot", plot, "a file")


def measure(
    chosen: Sequence[Network],
    cache: Path,
    *,
    formats: Sequence[str] = FORMATS,
    rounds: int = 30,
    runs: int = 3,
    threads: int = 1,
) -> dict[str, Any]:
    """Converts what is not in the cache, and measures the networks against each other.

    `rounds` and `runs` are those of `timing.interleaved`; with more than one of LiteRT's threads the time
    is that on the clock.

    Returns:
      The report: `networks` in the order given, each with its size, MACs, parameters and, for each
      format, `ms` (median over the rounds) with 10th and 90th percentile, file size, XNNPACK
      partitions and `ratio` to EfficientNet-B0 in that format, and the `int8_speedup`; machine,
      versions and settings.
    """
    files = _files(chosen, formats, cache)
    calls = {key: caller(found["paths"], threads) for key, found in files.items()}
    clock = "cpu" if threads == 1 else "wall"
    with bar("measuring", (rounds + 1) * len(calls), "turns", leave=False) as progress:
        times = timing.interleaved(calls, rounds, runs, clock=clock, tick=progress.update)
    from neas_tf.ensemble.store import library_versions

    return {
        "format": FORMAT,
        "reference": REFERENCE,
        "rounds": rounds,
        "runs": runs,
        "threads": threads,
        "clock": clock,
        "machine": timing.machine(),
        "versions": library_versions(
            "ai-edge-litert", "tensorflow", "tf-keras", "tf-models-official", "numpy"
        ),
        "networks": [_row(network, formats, files, times) for network in chosen],
    }


def _files(
    chosen: Sequence[Network], formats: Sequence[str], cache: Path
) -> dict[tuple[str, str], dict[str, Any]]:
    """What `prepare` says of every (network, format)."""
    missing = [network for network in chosen if not is_prepared(network, cache)]
    if missing:
        with bar("converting", len(missing), "networks", leave=False) as progress:
            for network in missing:
                progress.set_postfix_str(f", {network.name}")
                with native_noise_off():
                    prepare(network, formats[0], cache)
                progress.update()
    return {
        (network.name, format): prepare(network, format, cache)
        for network in chosen
        for format in formats
    }


def _row(
    network: Network,
    formats: Sequence[str],
    files: Mapping[tuple[str, str], Mapping[str, Any]],
    times: Mapping[tuple[str, str], list[float]],
) -> dict[str, Any]:
    first = files[network.name, formats[0]]
    row: dict[str, Any] = {
        "name": network.name,
        "label": network.label,
        "family": network.family,
        "input_size": list(network.size),
        "files": len(first["paths"]),
        "macs": first["macs"],
        "params": first["params"],
    }
    for format in formats:
        key = (network.name, format)
        found = {k: v for k, v in files[key].items() if k not in ("paths", "macs", "params")}
        row[format] = timing.spread(times[key]) | found
        if (REFERENCE, format) in times:
            row[format]["ratio"] = _ratio(times, key, (REFERENCE, format))
    if set(FORMATS) <= set(formats):
        row["int8_speedup"] = _ratio(times, (network.name, "float32"), (network.name, "int8"))
    return row


def _ratio(times: Mapping[tuple[str, str], list[float]], above: Any, below: Any) -> float:
    return round(timing.ratio(times[above], times[below]), 3)


def table(result: Mapping[str, Any]) -> str:
    """The report for people, as a Markdown table."""
    formats = [format for format in FORMATS if format in result["networks"][0]]
    head = ["network", "input", "M MACs", "M parameters"]
    for format in formats:
        head += [f"{format}, ms", "× B0"]
    if len(formats) == 2:
        head += ["int8 speed-up", "XNNPACK partitions, int8"]
    rows = [head, ["---"] * len(head)]
    for network in result["networks"]:
        height, width = network["input_size"]
        size = f"{height}²" if height == width else f"{height}×{width}"
        amounts = [f"{network['macs'] / 1e6:.0f}", f"{network['params'] / 1e6:.2f}"]
        row = [network["label"], size, *amounts]
        for format in formats:
            found = network[format]
            row += [f"{found['ms']:.2f}", f"{found['ratio']:.2f}" if "ratio" in found else "–"]
        if len(formats) == 2:
            parts = str(network["int8"]["xnnpack_partitions"])
            row += [f"{network['int8_speedup']:.2f}", parts]
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main())
