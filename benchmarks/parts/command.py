"""How the benchmark programs begin and end."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from neas_tf.common.errors import NeasError, check_int, unknown_name
from neas_tf.common.files import told, write_bytes_atomic, write_json_atomic
from neas_tf.common.paths import config_file, resolve_user_path


def parser(description: str | None) -> argparse.ArgumentParser:
    """With the program's docstring as its help, and where the report goes."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--output", default="", help="JSON file; default: standard output")
    return made


def check_counts(args: argparse.Namespace, **least: int) -> None:
    """Raises `NeasError` where a flag is less than this."""
    for name, value in least.items():
        check_int(f"--{name}", getattr(args, name), value)


def choose(flag: str, text: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the known things that a flag names, with commas.

    Raises:
      NeasError: for a name that is none.
    """
    names = [name for name in text.split(",") if name]
    for name in names:
        if name not in known:
            unknown_name(flag, name, known)
    return {name: known[name] for name in names}


def small_cifar10(data_dir: str) -> dict[str, Any]:
    """Settings over `neas_cifar10`: images and space of the studies, with the experiment's own gammas."""
    from neas_tf.config.parse import load_file

    settings = load_file(str(config_file("studies", "cifar10_cpu.yaml")))
    del settings["study"]
    del settings["supernet"]["zero_init_residual"]
    settings["data"]["data_dir"] = data_dir
    return settings


def exit_code(work: Callable[[], None]) -> int:
    """Does a program's work: 0, or 2 after bad input, with one sentence."""
    try:
        work()
    except NeasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write_report(
    report: Mapping[str, Any], output: str, program: str, arguments: Sequence[str] | None
) -> None:
    """Writes or prints a report, with the command that made it."""
    words = sys.argv[1:] if arguments is None else arguments
    report = {**report, "command": " ".join([f"python -m benchmarks.{program}", *words])}
    if output:
        with told(f"--output {output!r}"):
            write_json_atomic(Path(resolve_user_path(output)), report)
    else:
        print(json.dumps(report, indent=1))


def write_plot(content: bytes, plot: str) -> None:
    """Writes a picture."""
    with told(f"--plot {plot!r}"):
        write_bytes_atomic(Path(resolve_user_path(plot)), content)
