"""Keeps the HTML report of runs up to date while they go on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from neas_tf.common.folder_lock import is_at_work
from neas_tf.report.page import write_page
from neas_tf.report.page_data import is_finished
from neas_tf.report.reading import RunFiles, read_run


def watch(
    model_dirs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    seconds: float = 10.0,
    say: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Rewrites the page whenever the runs' files have more to say, until all runs are finished.

    Args:
      model_dirs: folders of the runs.
      output: the HTML file.
      seconds: between two looks; as often the page reloads itself.
      say: takes one line on what happened.
      sleep: waits; Ctrl-C ends it.

    Returns:
      Whether the runs are finished; False after Ctrl-C. In both cases the page that is left no
      longer reloads itself. Before a run has begun nothing is written into its folder.

    Raises:
      NeasError: when a model_dir is no folder.
      OSError: when the page cannot be written.
    """
    output, written, waited = Path(output), 0, False
    resting: set[Path] = set()
    try:
        while True:
            runs = [read_run(folder) for folder in model_dirs]
            if any(_would_be_in_the_way(run, output) for run in runs):
                if not waited:
                    say("waiting for the run to begin (Ctrl-C ends it)")
                waited = True
                sleep(seconds)
                continue
            if all(map(is_finished, runs)):
                write_page(output, runs)
                say(f"finished: {output}")
                return True
            try:
                new = write_page(output, runs, reload_seconds=seconds)
            except FileNotFoundError:
                new = False  # a run that begins sweeps up half-written files; the next look is soon
            if new:
                written += 1
                if written == 1:
                    say(f"watching every {seconds:g} s: {output} (Ctrl-C ends it)")
            _say_who_rests(runs, resting, say)
            sleep(seconds)
    except KeyboardInterrupt:
        if written:
            write_page(output, [read_run(folder) for folder in model_dirs])
        say(f"stopped watching: {output}" if written else "stopped watching: nothing was written")
        return False


def _say_who_rests(runs: Sequence[RunFiles], resting: set[Path], say: Callable[[str], None]):
    """One line when no process works on an unfinished run any more, one when it goes on."""
    for run in runs:
        folder, at_work = run.model_dir, is_at_work(run.model_dir)
        if at_work is False and folder not in resting and not is_finished(run):
            resting.add(folder)
            say(f"no process works on {str(folder)!r}: killed or stopped; the same command goes on")
        elif at_work and folder in resting:
            resting.remove(folder)
            say(f"{str(folder)!r} goes on")


def _would_be_in_the_way(run: RunFiles, output: Path) -> bool:
    """Whether the run has not begun and would refuse a folder with a page in it."""
    inside = run.model_dir.resolve() in output.resolve().parents
    return inside and not run.params and "params.yaml" in run.missing
