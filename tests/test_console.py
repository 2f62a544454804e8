"""Lines and bars, on a terminal and in a log."""

import io
import logging as standard_logging
import os
import subprocess
import sys

import pytest
from absl import logging

from neas_tf import console


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_say_goes_to_stderr(capsys):
    console.say("hello")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\n")


def test_heading(capsys):
    console.heading("Search", "first", "second")
    lines = capsys.readouterr().err.splitlines()
    assert (
        lines[0] == ""
        and lines[1].startswith("━━ Search ━")
        and lines[2:]
        == [
            "   first",
            "   second",
        ]
    )


def test_bars_are_few_lines_in_a_log(capsys):
    with console.bar("outer", 1000, "steps") as outer:
        for _ in range(1000):
            outer.set_postfix_str("loss 1.0")
            outer.update()
        with console.bar("inner", 500, "ensembles", leave=False) as inner:
            for _ in range(500):
                inner.update()
        console.say("between")
    text = capsys.readouterr().err
    assert "\r" not in text and "\x1b" not in text
    lines = text.splitlines()
    assert len(lines) <= 8 and "between" in lines
    assert lines[-1].startswith("outer: 1000 of 1000 steps, 00:0")
    assert any(line.startswith("inner: 500 of 500 ensembles") for line in lines)


def test_a_bar_goes_on_where_it_was(capsys):
    with console.bar("search", 10, "ensembles", initial=7) as bar:
        bar.update(3)
    assert "10 of 10" in capsys.readouterr().err


def test_bars_on_a_terminal(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with console.bar("steps", 3, "steps") as bar:
        bar.update(3)
        console.say("a line")
    assert "\r" in screen.getvalue() and "a line\n" in screen.getvalue()
    assert "3/3 steps" in screen.getvalue()


@pytest.mark.parametrize(
    "value,text",
    [(0, "0"), (999, "999"), (47_168, "47.17 k"), (301_500_768, "301.50 M"), (2e9, "2.00 G")],
)
def test_short_count(value, text):
    assert console.short_count(value) == text


def test_libraries_are_quiet_and_own_warnings_are_not(capsys, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    root, absl_logger = standard_logging.getLogger(), logging.get_absl_logger()
    before = (list(root.handlers), list(absl_logger.filters), logging.get_verbosity())
    levels = standard_logging.getLogger("tensorflow").level
    try:
        console.quiet_libraries()
        console.quiet_libraries()  # once more says nothing twice
        logging.info("noise")
        logging.warning("The list/tuple don't match the value dictionaries provided. Thus, …")
        logging.warning("3 of %d images are damaged", 10)
        text = capsys.readouterr().err
        assert text == "Warning: 3 of 10 images are damaged\n"
        assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    finally:
        root.handlers[:], absl_logger.filters[:] = before[:2]
        logging.set_verbosity(before[2])
        standard_logging.getLogger("tensorflow").setLevel(levels)


_NATIVE = """
import os, sys
from neas_tf import console
with console.native_noise_off():
    os.write(2, b"noise of a library\\n")
os.write(2, b"heard\\n")
try:
    with console.native_noise_off():
        os.write(2, b"the reason\\n")
        raise OSError
except OSError:
    pass
"""


def test_native_noise_off():
    result = subprocess.run(
        [sys.executable, "-c", _NATIVE], capture_output=True, text=True, check=True
    )
    assert result.stderr == "heard\nthe reason\n"
