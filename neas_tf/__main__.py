"""The command `neas`: one name for all commands of the project.

Each is a module that `python -m` runs as well; nothing of it is loaded before it is chosen.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import neas_tf
from neas_tf.common.errors import NeasError, unknown_name

try:
    from neas_tf.common import command_line, console
except ModuleNotFoundError as _error:  # not even the small libraries are there
    sys.exit(f"neas: {_error.name} is not installed; 'pip install neas-tf' installs what it needs.")

# Name: module and summary; a group has such commands of its own.
_Command = tuple[str, str]
_EXPORT: dict[str, _Command] = {
    "tflite": ("neas_tf.export.commands.to_tflite", "a TFLite file, float32 to int8, pruned"),
    "saved-model": ("neas_tf.export.commands.to_saved_model", "a SavedModel"),
    "keras": ("neas_tf.export.commands.to_keras", "a file for Keras 3, whole or weights alone"),
}
_DETECT: dict[str, _Command] = {
    "train": ("neas_tf.detection.commands.train", "train a detector with a NEAS backbone"),
    "export": ("neas_tf.detection.commands.export", "write it as a SavedModel or TFLite file"),
    "predict": ("neas_tf.detection.commands.predict", "find objects in a picture"),
    "evaluate": ("neas_tf.detection.commands.evaluate", "COCO's metrics of an exported detector"),
    "compare": ("neas_tf.detection.commands.compare", "a table of finished runs"),
}
_COMMANDS: dict[str, _Command | dict[str, _Command]] = {
    "search": ("neas_tf.commands.search", "from your pictures and a budget to a trained ensemble"),
    "train": ("neas_tf.train", "search, retrain and export an ensemble"),
    "describe": ("neas_tf.commands.describe", "what an ensemble is and costs, without building it"),
    "evaluate": ("neas_tf.commands.evaluate", "the accuracy of an exported file or of a run"),
    "robustness": ("neas_tf.commands.robustness", "errors on corrupted pictures, 15 kinds"),
    "report": ("neas_tf.report", "pictures, summary and page of a run, or of several"),
    "latency": (
        "neas_tf.commands.measure_latency",
        "a table of what every operator takes on a device",
    ),
    "convert": ("neas_tf.commands.convert_torch", "a model from the authors' PyTorch checkpoint"),
    "study": ("neas_tf.study", "the paper's studies"),
    "doctor": ("neas_tf.commands.doctor", "whether a search can run here, and what is missing"),
    "export": _EXPORT,
    "detect": _DETECT,
}
_HELP = ("-h", "--help", "-help", "help")


def main() -> None:
    """Runs the command that the arguments name, and ends the process with its exit code."""
    given = command_line.words_before_cursor() if command_line.completing() else sys.argv[1:]
    chosen: list[str] = []
    entry: Any = _COMMANDS  # a command, or what there is to choose from
    for word in given:
        if isinstance(entry, tuple) or word not in entry:
            break
        chosen.append(word)
        entry = entry[word]
    if isinstance(entry, tuple):
        # As with `python -m`: the module reads sys.argv, or completes what comes after its name.
        command_line.skip_words(len(chosen))
        sys.argv[1:] = given[len(chosen) :]
        runpy.run_module(entry[0], run_name="__main__", alter_sys=True)
    else:
        known = entry
        command_line.start(lambda: _answer(chosen, known, given[len(chosen) :]))


def _answer(chosen: Sequence[str], known: Mapping[str, Any], rest: Sequence[str]) -> int:
    """Where no command is named: what there is, or what is wrong; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=list(known))
    if not chosen:
        parser.add_argument("--version", action="store_true")
    command_line.skip_words(len(chosen))
    command_line.complete(parser)
    if not rest or rest[0] in _HELP:
        console.show(_usage(chosen, known))
    elif rest[0] == "--version" and not chosen:
        console.show(f"neas-tf {neas_tf.__version__}")
    else:
        try:
            unknown_name("command", rest[0], known)
        except NeasError as error:
            console.say(f"{' '.join(['neas', *chosen])}: {error}")
            return error.exit_code
    return 0


def _usage(chosen: Sequence[str], known: Mapping[str, Any]) -> str:
    """What there is to choose from after the words that were chosen already."""
    name = " ".join(["neas", *chosen])
    lines = [f"usage: {name} COMMAND [--flag=value …]", "", "commands:"]
    rows = []
    for word, entry in known.items():
        if isinstance(entry, tuple):
            rows.append((word, entry[1]))
        else:
            rows += [(f"{word} {inner}", summary) for inner, (_, summary) in entry.items()]
    width = max(len(word) for word, _ in rows)
    lines += [f"  {word:{width}}  {summary}" for word, summary in rows]
    return "\n".join([*lines, "", f"{name} COMMAND --help lists the flags of a command."])


if __name__ == "__main__":
    main()
