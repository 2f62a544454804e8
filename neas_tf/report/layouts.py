"""Where a run's files lie: in its model_dir, or flat in a published folder such as docs/results/*."""

from __future__ import annotations

from pathlib import Path

LATENCY_FILE = "search/latency_table.json"
# Name in a model_dir → name in a published folder. Names that both share are not here.
PUBLISHED = {
    "search/history.jsonl": "history.jsonl",
    "search/best.json": "architecture.json",
    LATENCY_FILE: "latency_table.json",
    "retrain/results.json": "results.json",
    "retrain/confusion.json": "confusion.json",
    "supernet/metrics.jsonl": "supernet_metrics.jsonl",
    "retrain/metrics.jsonl": "retrain_metrics.jsonl",
    "timing.json": "summary.json",
}


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
