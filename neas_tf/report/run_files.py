"""Where a run's files lie, in its model_dir or flat in a published folder such as docs/results/*;
how far it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neas_tf.common.errors import is_number
from neas_tf.search.fitness import NUMBERS
from neas_tf.space.shrunk_space import ShrunkSpace

if TYPE_CHECKING:
    from neas_tf.report.reading import RunFiles

LATENCY_FILE = "search/latency_table.json"
# Name in a model_dir → name in a published folder. Names that both share are not here.
PUBLISHED = {
    "search/history.jsonl": "history.jsonl",
    "search/best.json": "architecture.json",
    LATENCY_FILE: "latency_table.json",
    "retrain/results.json": "results.json",
    "retrain/confusion.json": "confusion.json",
    "retrain/pictures.json": "pictures.json",
    "retrain/uncertainty.json": "uncertainty.json",
    "supernet/metrics.jsonl": "supernet_metrics.jsonl",
    "retrain/metrics.jsonl": "retrain_metrics.jsonl",
    "timing.json": "summary.json",
}


@dataclasses.dataclass(frozen=True)
class Shrink:
    """One `shrink/shrink_NN.json`.

    Attributes:
      index: 1-based.
      step, epoch: of the supernet's training.
      metric: diversity, accuracy or none.
      layers: per scored layer a mapping as the file has it, its numbers as float arrays.
      alive: the space after this shrink; None without a (matching) space.
    """

    index: int
    step: int
    epoch: float | None
    metric: str
    layers: tuple[Mapping[str, Any], ...]
    alive: ShrunkSpace | None

    @property
    def splittable(self) -> list[Mapping[str, Any]]:
        """The layers with a similarity whose combinations hold several operators."""
        return [
            layer
            for layer in self.layers
            if layer["similarity"] is not None
            and any(len(row["operators"]) > 1 for row in layer.get("combinations") or ())
        ]


def find(model_dir: Path, name: str) -> Path:
    """The file `name` of a run; where it is not there, the one that a published folder has for it.

    The path need not exist.
    """
    path = model_dir / name
    published = PUBLISHED.get(name)
    if published is None or path.exists() or not is_published(model_dir):
        return path
    return model_dir / published


def is_published(model_dir: Path) -> bool:
    """Whether a folder holds a run's files flat."""
    return (model_dir / "history.jsonl").exists()


def export_reports(model_dir: Path) -> list[Path]:
    """The reports of a run's exports, by name."""
    if is_published(model_dir):
        return sorted(model_dir.glob("model*.json"))
    return sorted((model_dir / "export").glob("*.json"))


def number(value: object) -> float | None:
    """The value when it is a finite number, else None."""
    return value if is_number(value) else None  # type: ignore[return-value]


def find_key(tree: object, key: str) -> Any:
    """Value of the shallowest `key` in nested mappings, None when there is none."""
    level = [tree]
    while level:
        maps = [node for node in level if isinstance(node, Mapping)]
        for node in maps:
            if isinstance(node.get(key), Mapping):
                return node[key]
        level = [child for node in maps for child in node.values()]
    return None


def stages(run: RunFiles) -> list[dict[str, str]]:
    """How far each stage is: `name`, `state` (none, begun, done) and `text`."""
    rows = []
    for name, done in (
        ("supernet", bool(run.candidates) or "shrink/alive.json" not in run.missing),
        ("search", run.winner_key is not None),
        ("retrain", run.results is not None),
    ):
        if name == "search":
            begun = bool(run.candidates)
            text = f"{len(run.candidates):,} candidates" if begun else ""
        else:
            lines = run.metrics.get(name) or ()
            begun = bool(lines)
            text = f"step {lines[-1]['step']:,.0f}" if begun else ""
        rows.append({"name": name, "state": _state(begun, done), "text": text})
    # A published folder has the reports of some exports only.
    made, wanted = len(run.exports), 0 if is_published(run.model_dir) else _formats(run)
    text = f"{made} of {wanted} files" if wanted else f"{made} file{'' if made == 1 else 's'}"
    state = _state(made > 0, made >= max(wanted, 1))
    rows.append({"name": "export", "state": state, "text": text if made else ""})
    return rows


def is_finished(run: RunFiles) -> bool:
    """Whether nothing more is to come: tested, and every format of `export.formats` written."""
    return run.results is not None and len(run.exports) >= _formats(run)


def _formats(run: RunFiles) -> int:
    formats = (find_key(run.params, "export") or {}).get("formats")
    return len(formats) if isinstance(formats, list) else 0


def _state(begun: bool, done: bool) -> str:
    return "done" if done else "begun" if begun else "none"


def known_numbers(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those of `NUMBERS` that some candidate's row (`charts.candidate_rows`) has."""
    return [name for name in NUMBERS if any(name in row for row in rows)]
