"""Lines and bars, on a terminal and in a log."""

import errno
import io
import logging as standard_logging
import os
import subprocess
import sys

import pytest
from absl import logging

from neas_tf.common import console
from neas_tf.common.paths import project_file


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
from neas_tf.common import console
from neas_tf.common.paths import project_file
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


def test_warnings_of_one_call_are_told_once(caplog):
    with console.without_repeats():
        for count in (1, 1, 2):
            logging.warning("%d pictures are not read", count)
            logging.info("looked again")
    logging.warning("%d pictures are not read", 1)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"{count} pictures are not read" for count in (1, 2, 1)]


def test_native_noise_off():
    result = subprocess.run(
        [sys.executable, "-c", _NATIVE], capture_output=True, text=True, check=True
    )
    assert result.stderr == "heard\nthe reason\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_terminal_shows_a_result(encoding, monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)  # strict, as Python makes it
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    console.show("─ 8×8 … 😀 ½")
    console.say("→ caf\udcc3")
    with console.bar("études …", 2, "µ") as bar:
        bar.update(2)
    shown = raw.getvalue().decode(encoding)
    first = {"ascii": r"- 8x8 ... \U0001f600 \xbd", "latin-1": "- 8×8 ... \\U0001f600 ½"}
    first |= {"cp1252": "- 8×8 … \\U0001f600 ½", "utf-8": "─ 8×8 … 😀 ½"}
    assert shown.startswith(first[encoding] + "\n")
    assert shown.split("\n")[1] == ("→" if encoding == "utf-8" else "->") + r" caf\udcc3"


def test_no_terminal_at_all(monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    said = io.StringIO()
    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(sys, "stderr", said)
    console.show("lost")
    assert "standard output cannot be written (No space left" in said.getvalue()
    for gone in (Full(), None):
        monkeypatch.setattr(sys, "stderr", gone)
        monkeypatch.setattr(sys, "stdout", gone)
        console.show("lost")
        console.say("lost")
        with console.bar("x", 1, "y") as bar:
            bar.update()


@pytest.mark.parametrize(
    "where,code,words",
    [
        (">&-", 0, ""),
        ("2>&- <&-", 0, "mean of the paths"),
        (">&- 2>&- <&-", 0, ""),
        ("2>/dev/full", 0, "mean of the paths"),
        ("| head -1", 0, "neas_s"),
        ("--help | head -1", 0, "usage: python -m neas_tf.describe"),
        (">/dev/full", 2, "standard output cannot be written (No space left on device)"),
    ],
)
def test_commands_end_well_wherever_they_print(where, code, words):
    command = f"{sys.executable} -m neas_tf.describe --arch=neas_s {where}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=project_file(), check=False
    )
    assert done.returncode == code and words in done.stdout + done.stderr, done
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_names_of_files_in_the_c_locale(tmp_path):
    """TensorFlow takes UTF-8 alone; Python is started again where it would not."""
    path = tmp_path / "é😀.json"
    path.write_text('{"format": "neas-architecture/1"}')
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "neas_tf.describe", f"--arch={path}"],
        env=os.environ | environment,
        capture_output=True,
        cwd=project_file(),
        check=False,
    )
    assert done.returncode == 2 and b"\\xe9\\U0001f600.json" in done.stderr, done.stderr


def test_a_line_of_a_log_is_whole(capsys):
    """However long its text is: nobody's terminal cuts it."""
    text = "loss 0.935, accuracy 66.9%, " * 8 + "waits 0.3% for data"
    with console.bar("supernet", 3, "steps") as bar:
        bar.set_postfix_str(text)
        bar.update(3)
    assert text in capsys.readouterr().err
