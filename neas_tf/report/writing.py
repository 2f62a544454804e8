"""Writes everything that can be drawn from what a model_dir holds."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neas_tf.common.files import write_bytes_atomic, write_json_atomic, write_text_atomic
from neas_tf.report.page import PAGE_FILE, write_page
from neas_tf.report.reading import RunFiles, read_run
from neas_tf.report.summary import (
    budget,
    format_markdown,
    format_summary,
    second_objective,
    summarise,
)
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Report:
    """What `write_report` did.

    Attributes:
      written: files, in the order of writing.
      missing: picture → the sentence that says what it would need.
      problems: one sentence for each input that could not be used.
      summary: from `summarise`.
    """

    written: tuple[Path, ...]
    missing: dict[str, str]
    problems: tuple[str, ...]
    summary: dict[str, Any]


def draw_architecture(architecture: Architecture, space: SearchSpace, cost: Any = None) -> Figure:
    """As `architecture_plot.draw_architecture`, which imports matplotlib."""
    from neas_tf.report import architecture_plot

    return architecture_plot.draw_architecture(architecture, space, cost)


def write_report(
    model_dir: str | os.PathLike[str],
    space: SearchSpace | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    cost: Any = None,
) -> Report:
    """Writes pictures, summary and `report.html` of a run, whole or partial, each file atomically.

    Args:
      model_dir: folder of the run.
      space: search space; by default key `space` of `params.yaml`.
      output_dir: by default `model_dir/report`.
      cost: of the found ensemble, for its picture: mapping or object with `macs`, `paper_flops`,
        `params`, `shared_macs`, `path_macs`; by default from the space.

    Returns:
      What was written, what could not be drawn and why.

    Raises:
      NeasError: when `model_dir` is no folder.
      OSError: when `output_dir` cannot be written.
    """
    run = read_run(model_dir, space)
    folder = Path(output_dir) if output_dir is not None else run.model_dir / "report"
    written, missing = [], {}
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
    summary = summarise(run)
    drawn = [path.name for path in written]
    write_json_atomic(folder / "summary.json", summary)
    write_text_atomic(folder / "summary.txt", format_summary(summary))
    write_text_atomic(folder / "summary.md", format_markdown(summary, drawn))
    written += [folder / f"summary.{suffix}" for suffix in ("json", "txt", "md")]
    try:
        write_page(folder / PAGE_FILE, [run])
        written.append(folder / PAGE_FILE)
    except OSError:
        raise
    except Exception as error:  # As with the pictures.
        missing[PAGE_FILE] = f"could not be made ({type(error).__name__}: {error})"
    return Report(tuple(written), missing, tuple(run.problems), summary)


def _pictures(run: RunFiles, cost: Any) -> Iterator[tuple[str, str, Callable[[], bytes]]]:
    """(file name, what it lacks or '', function that gives PNG bytes) of each picture."""
    no_space = "" if run.space is not None else "needs the search space (params.yaml, key 'space')"

    def architecture() -> bytes:
        from neas_tf.report.style import to_png

        return to_png(draw_architecture(run.architecture, run.space, cost or run.cost_from_space()))

    lacking = "" if run.architecture is not None else "needs search/best.json"
    yield "architecture.png", lacking or no_space, architecture

    def search() -> bytes:
        from neas_tf.report.search_plot import draw_search
        from neas_tf.report.style import to_png

        cost = second_objective(run.params)
        return to_png(draw_search(run.candidates, run.winner_key, budget(run.params), cost))

    yield "search_scatter.png", "" if run.candidates else "needs search/history.jsonl", search

    def alive() -> bytes:
        from neas_tf.report.shrink_plots import draw_alive_operators
        from neas_tf.report.style import to_png

        return to_png(draw_alive_operators(run.shrinks, run.space))

    shown = [shrink for shrink in run.shrinks if shrink.alive is not None]
    lacking = "" if run.shrinks else "needs shrink/shrink_*.json"
    lacking = lacking or no_space or ("" if shown else "needs 'alive' in shrink/shrink_*.json")
    yield "alive_operators.png", lacking, alive

    scored = [s for s in run.shrinks if s.splittable]

    def similarity() -> bytes:
        from neas_tf.report.shrink_plots import draw_similarity
        from neas_tf.report.style import to_png

        return to_png(draw_similarity(scored[-1]))

    lacking = "" if scored else "needs shrink/shrink_*.json with similarities"
    yield "similarity.png", lacking, similarity

    def curves() -> bytes:
        from neas_tf.report.curves_plot import draw_training_curves
        from neas_tf.report.style import to_png

        return to_png(draw_training_curves(run.metrics, [s.step for s in run.shrinks]))

    needs = "needs supernet/metrics.jsonl or retrain/metrics.jsonl with losses or accuracies"
    yield "training_curves.png", "" if any(map(_drawable, run.metrics.values())) else needs, curves


def _drawable(lines: Any) -> bool:
    words = ("loss", "accuracy", "learning_rate")
    return any(any(word in key for word in words) for line in lines for key in line)
