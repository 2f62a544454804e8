"""A process that has the libraries loaded and forks a sitting of the pipeline for every order.

Loading takes longer than a whole tiny run. TensorFlow's runtime starts in the sitting, which is a
process of its own with a process group of its own. Orders come as lines of JSON on stdin, answers
go to stdout: {"pid": …} at the start and {"status": …} at the end.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import signal
import sys
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load() -> None:
    """Imports what a sitting imports, as the command does."""
    from neas_tf.common import console

    console.quiet_libraries()
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    import tensorflow  # noqa: F401

    from neas_tf import train  # noqa: F401
    from neas_tf.config import parse as parse_config  # noqa: F401
    from neas_tf.run import pipeline  # noqa: F401


def speak_into(path: str) -> None:
    """Sends stderr to a file, at its end, and shuts the other streams."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(log, 2)


def command(arguments: list[str]) -> None:
    """Runs the command. Does not return."""
    from absl import app

    from neas_tf import train

    # Model Garden's flags belong to absl's set as well; the command has only its own.
    app.run(train.main, argv=["train", *arguments], flags_parser=train.parse_flags)


def sit(order: dict[str, Any]) -> None:
    """The child: one run of the command. Does not return."""
    os.setsid()
    speak_into(order["log"])
    if order.get("file_limit"):  # bytes; a write behind it fails with EFBIG
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_limit"],) * 2)
    from soak.faults import Faults

    if order.get("quick_graphs"):
        import tensorflow as tf

        # Tracing and optimising are most of the time of a sitting.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    folder = next(a.split("=", 1)[1] for a in order["argv"] if a.startswith("--model_dir="))
    Faults(folder, order.get("fault") or {}, order["journal"]).install()
    command(order["argv"])


def main() -> None:
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "support")]
    load()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            sit(json.loads(line))
            os._exit(1)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
