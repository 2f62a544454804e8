"""How commands end: SIGTERM in processes of their own; exit codes, and what libraries may tell."""

import os
import signal
import subprocess
import sys

import pytest
from absl import logging

from neas_tf.common import command_line, paths
from neas_tf.common.command_line import EXIT_CODE, Terminated, terminating
from neas_tf.common.errors import NeasError

_PROGRAM = """
import os, signal, sys, time
from neas_tf.common import command_line as stopping
stopping._AGAIN = 0.2
class Swallows:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(60)  # the exception is lost here
try:
    with stopping.terminating():
        if sys.argv[1] == "swallowed":
            value = Swallows()
            del value
        else:
            print("ready", flush=True)
        time.sleep(60)
except stopping.Terminated:
    print("stopped", signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, flush=True)
    sys.exit(stopping.EXIT_CODE)
"""


@pytest.mark.parametrize("way", ["plain", "swallowed"])
def test_sigterm(way):
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, way],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=paths.project_file(),
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=50)
    assert out == "stopped True\n" and process.returncode == EXIT_CODE == 143


def test_without_a_signal_nothing_changes():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)
    with terminating():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)) == before
    assert not issubclass(Terminated, Exception)


def test_a_quiet_command_tells_of_errors_alone(monkeypatch, request):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    level, seen = logging.get_verbosity(), []
    request.addfinalizer(lambda: logging.set_verbosity(level))

    def work():
        seen.append((os.environ["TF_CPP_MIN_LOG_LEVEL"], logging.get_verbosity()))
        raise NeasError("model: received nothing, expected a file.")

    assert command_line.quiet_exit_code("neas detect predict", work) == 2
    assert seen == [("3", logging.ERROR)]
