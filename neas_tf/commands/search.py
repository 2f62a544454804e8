"""Finds, trains and exports an ensemble for your pictures: `neas search photos/ --max_macs=60M`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from neas_tf.common import command_line, console
from neas_tf.common.command_line import EXIT_CODE, Terminated, terminating
from neas_tf.common.errors import NeasError, fail

NAME = "neas search"
parse_flags = command_line.flags_parser(NAME)

_MODEL_DIR = flags.DEFINE_string(
    "model_dir", "neas_run", "Folder of the run; an interrupted one resumes from what it holds."
)
_BOUNDS = {
    name: flags.DEFINE_string(name, None, text)
    for name, text in {
        "max_macs": "Multiply-accumulates of the ensemble for one image, such as 60M.",
        "max_params": "Trainable parameters, such as 500k.",
        "max_latency_ms": "Latency that a --latency_table predicts, such as 2ms.",
    }.items()
}
_TABLE = flags.DEFINE_string("latency_table", None, "Table that `neas latency` measured.")
_MEASURE = flags.DEFINE_bool(
    "measure", False, "Measures a table of this machine for --max_latency_ms; minutes, once."
)
_SIZE = flags.DEFINE_string("input_size", None, "Pixels of an image, such as 64 or 64x96.")
_PATHS = flags.DEFINE_integer("num_paths", None, "Networks of the ensemble.", 1, 16)
_LIMIT = flags.DEFINE_string(
    "time_limit", None, "Plans the lengths so that the whole ends in time, such as 20min or 2h."
)
_SEED = flags.DEFINE_integer("seed", None, "Everything random derives from it.", 0)
_OVERRIDE = flags.DEFINE_string(
    "params_override", "", "Further settings: a.b=1,c=2, a YAML mapping, or a YAML file."
)
_THREADS = flags.DEFINE_integer("threads", 0, "Threads of TensorFlow; 0 takes all cores.", 0)


def main(argv: Sequence[str]) -> int:
    """Searches; bad input ends with one sentence and exit code 2, SIGTERM with 143."""
    try:
        with terminating():
            return command_line.exit_code(NAME, _MODEL_DIR.value, lambda: _run(argv))
    except Terminated:
        console.say(f"\n{NAME}: received SIGTERM; the same command continues from here.")
        return EXIT_CODE


def _run(argv: Sequence[str]) -> None:
    if len(argv) != 2:
        given = " ".join(argv[1:]) or "nothing"
        raise NeasError(f"data: received {given}, expected one folder of pictures (see --help).")
    settings: dict[str, Any] = {k: f.value for k, f in _BOUNDS.items() if f.value is not None}
    others = {
        "latency_table": _TABLE,
        "num_paths": _PATHS,
        "seed": _SEED,
        "time_limit": _LIMIT,
    }
    settings |= {name: flag.value for name, flag in others.items() if flag.value is not None}
    if _SIZE.value is not None:
        settings["input_size"] = _sides(_SIZE.value)
    command_line.start_tensorflow(_THREADS.value)
    from neas_tf.api.search import search

    search(
        argv[1],
        model_dir=_MODEL_DIR.value,
        measure=_MEASURE.value,
        params_override=_OVERRIDE.value,
        **settings,
    )


def _sides(text: str) -> list[int]:
    sides = text.replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.strip().isdecimal() for side in sides):
        fail("input_size", text, "pixels, such as 64 or 64x96")
    return [int(side) for side in (sides * 2)[:2]]


if __name__ == "__main__":
    command_line.run(main, parse_flags)
