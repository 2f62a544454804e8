"""Writes everything that can be drawn from what a model_dir holds, also while the run is going on."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from neas_tf.common.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from neas_tf.common.folder_lock import is_at_work
from neas_tf.report import charts, diagram, shrinks, style, tensorboard
from neas_tf.report.page import PAGE_FILE, write_page
from neas_tf.report.parts.quality import quality_of
from neas_tf.report.parts.uncertain import risk_chart
from neas_tf.report.reading import RunFiles, read_run
from neas_tf.report.run_files import is_finished
from neas_tf.report.summary import (
    budget,
    format_markdown,
    format_summary,
    search_fitness,
    second_objective,
    summarise,
)
from neas_tf.space.search_space import SearchSpace


@dataclasses.dataclass(frozen=True)
class Report:
    """What `write_report` did.

    Attributes:
      written: files, in the order of writing; last the folder of TensorBoard's events.
      missing: picture → the sentence that says what it would need.
      problems: one sentence for each input that could not be used.
      summary: from `summarise`.
    """

    written: tuple[Path, ...]
    missing: dict[str, str]
    problems: tuple[str, ...]
    summary: dict[str, Any]


def write_report(
    model_dir: str | os.PathLike[str],
    space: SearchSpace | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    cost: Any = None,
) -> Report:
    """Writes pictures, summary, `report.html` and TensorBoard's events of a run, whole or partial.

    Each file is written atomically.

    Args:
      space: by default key `space` of `params.yaml`.
      output_dir: by default `model_dir/report`.
      cost: of the found ensemble, for its picture: mapping or object with `macs`, `paper_flops`,
        `params`, `shared_macs`, `path_macs`; by default from the space.

    Raises:
      NeasError: when `model_dir` is no folder.
      OSError: when `output_dir` cannot be written.
    """
    run = read_run(model_dir, space)
    folder = Path(output_dir) if output_dir is not None else run.model_dir / "report"
    written, missing, drawn = [], {}, {}
    for name, need, draw in _pictures(run, cost):
        if need:
            missing[name] = need
            continue
        try:
            picture = draw()
        # A picture must not cost a finished run its report, whatever the files hold.
        except Exception as error:
            missing[name] = f"could not be drawn ({type(error).__name__}: {error})"
            run.problems.append(f"{name}: {missing[name]}.")
            continue
        write_bytes_atomic(folder / name, picture)
        written.append(folder / name)
        drawn[name] = picture
    summary = summarise(run)
    write_json_atomic(folder / "summary.json", summary)
    write_text_atomic(folder / "summary.txt", format_summary(summary))
    write_text_atomic(folder / "summary.md", format_markdown(summary, [*drawn]))
    written += [folder / f"summary.{suffix}" for suffix in ("json", "txt", "md")]
    for name, write in (
        (PAGE_FILE, lambda: write_page(folder / PAGE_FILE, [run]) or True),
        (tensorboard.FOLDER, lambda: tensorboard.write_events(folder, run, drawn)),
    ):
        try:
            if write():
                written.append(folder / name)
        except OSError:
            raise
        except Exception as error:  # As with the pictures.
            missing[name] = f"could not be made ({type(error).__name__}: {error})"
    return Report(tuple(written), missing, tuple(run.problems), summary)


def _pictures(run: RunFiles, cost: Any) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """(file name, what it lacks or '', function that gives PNG bytes) of each picture."""
    no_space = "" if run.space is not None else "needs the search space (params.yaml, key 'space')"
    steps = [shrink.step for shrink in run.shrinks]

    def architecture() -> bytes:
        assert run.architecture is not None and run.space is not None  # else it is missing
        known = cost or run.cost_from_space()
        return diagram.to_png(diagram.draw_architecture(run.architecture, run.space, known))

    def search() -> bytes:
        weighed, limits = second_objective(run.params), budget(run.params)
        quality = quality_of(search_fitness(run.params), run.candidates)
        chart = charts.search_picture(run.candidates, run.winner_key, limits, weighed, quality)
        generations = max(c.generation for c in run.candidates) + 1
        note = (
            f"{len(run.candidates):,} candidates, generations: {generations}. {charts.SCATTER_KEY}"
        )
        return style.to_png(chart, "Search", note)

    lacking = "" if run.architecture is not None else "needs search/best.json"
    yield "architecture.png", lacking or no_space, architecture
    yield "search_scatter.png", "" if run.candidates else "needs search/history.jsonl", search
    shown = [shrink for shrink in run.shrinks if shrink.alive is not None]
    lacking = "" if run.shrinks else "needs shrink/shrink_*.json"
    lacking = lacking or no_space or ("" if shown else "needs 'alive' in shrink/shrink_*.json")
    yield "alive_operators.png", lacking, lambda: shrinks.draw_alive(run.shrinks)
    scored = [shrink for shrink in run.shrinks if shrink.splittable]
    lacking = "" if scored else "needs shrink/shrink_*.json with similarities"
    yield "similarity.png", lacking, lambda: shrinks.draw_similarity(scored[-1])
    needs = "needs supernet/metrics.jsonl or retrain/metrics.jsonl with losses or accuracies"
    drawn = any(charts.row_of(k) for lines in run.metrics.values() for x in lines for k in x)
    yield (
        "training_curves.png",
        "" if drawn else needs,
        lambda: style.to_png(charts.curves_picture(run.metrics, steps), "Training"),
    )
    found = run.uncertainty
    if found is not None:  # tests of older versions leave none
        words = f"{found['examples']:,} test images, the surest ones first"
        yield (
            "risk_coverage.png",
            "",
            lambda: style.to_png(risk_chart(found), "Errors by coverage", words),
        )


def watch(
    model_dirs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    seconds: float = 10.0,
    say: Callable[[str], None] = print,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Rewrites the page whenever the runs' files have more to say, until all runs are finished.

    Every so many `seconds` it looks, and the page reloads itself; before a run has begun, nothing is
    written into its folder. Returns whether the runs are finished, False after Ctrl-C; in both cases
    the page that is left no longer reloads itself.

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
    """One line when no process works on an unfinished run any more, one when it continues."""
    for run in runs:
        folder, at_work = run.model_dir, is_at_work(run.model_dir)
        if at_work is False and folder not in resting and not is_finished(run):
            resting.add(folder)
            say(
                f"no process works on {str(folder)!r}: killed or stopped; the same command continues it"
            )
        elif at_work and folder in resting:
            resting.remove(folder)
            say(f"{str(folder)!r} continues")


def _would_be_in_the_way(run: RunFiles, output: Path) -> bool:
    """Whether the run has not begun and would refuse a folder with a page in it."""
    inside = run.model_dir.resolve() in output.resolve().parents
    return inside and not run.params and "params.yaml" in run.missing
