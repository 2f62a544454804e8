"""A run's files as events for TensorBoard: candidates as HParams, and pictures. No TensorFlow.

The same files give the same bytes; what they say has no time, so TensorBoard shows 1970.
"""

from __future__ import annotations

import base64
import contextlib
import io
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from neas_tf.common.files import write_bytes_atomic
from neas_tf.cost.latency_table import METRIC as LATENCY
from neas_tf.cost.latency_table import NANOSECONDS
from neas_tf.ensemble.confusion import KINDS
from neas_tf.report import style
from neas_tf.report.charts import thinned
from neas_tf.report.parts.run_data import confusion_data, named
from neas_tf.report.reading import METRICS, RunFiles
from neas_tf.search.candidate import Candidate

FOLDER = "tensorboard"
EVENTS_FILE = "events.out.tfevents.0.neas"
MAX_CANDIDATES = 200  # each is a folder with a file


def write_events(folder: Path, run: RunFiles, drawn: Mapping[str, bytes]) -> bool:
    """Writes `FOLDER` again inside the folder of a report; returns whether there was anything.

    Args:
      folder: of the report.
      run: what was read of the run.
      drawn: the report's pictures, file name → PNG.
    """
    place = folder / FOLDER
    shown = thinned([c for c in run.candidates if c.finished], run.winner_key, MAX_CANDIDATES)
    files = {f"candidates/{c.number:05d}": list(_candidate(c)) for c in shown}
    images = [_image(tag, content) for tag, content in _pictures(run, drawn)]
    if shown or images:
        files[""] = [*_experiment(shown), *images]
    for name, summaries in files.items():
        write_bytes_atomic(place / name / EVENTS_FILE, _events(summaries))
    for path in list(place.rglob(EVENTS_FILE)):
        # Candidates of an earlier search would stay beside these.
        if path.parent not in {place / name for name in files}:
            path.unlink()
            with contextlib.suppress(OSError):  # not empty: somebody's own files
                path.parent.rmdir()
    return bool(files)


def _events(summaries: Iterable[Any]) -> bytes:
    """A file of events; each summary is a `Summary` of one value."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    content = io.BytesIO()
    writer = RecordWriter(content)
    writer.write(Event(file_version="brain.Event:2").SerializeToString())
    for summary in summaries:
        writer.write(Event(summary=summary).SerializeToString())
    return content.getvalue()


def _metrics(candidate: Candidate) -> dict[str, float]:
    """What a candidate is judged by, by tag."""
    costs = {name: candidate.costs[name] for name in METRICS if name in candidate.costs}
    latency = costs.pop(LATENCY, None)
    told = {} if latency is None else {"latency_ms": latency / NANOSECONDS}
    return {"accuracy": candidate.accuracy, **candidate.numbers, **costs, **told}


def _parameters(candidate: Candidate) -> dict[str, int | str]:
    """What a candidate is: its operators by layer, those of all paths where they differ."""
    found = candidate.architecture
    layers = {
        f"layer {i:02d}": " | ".join(names[:1] if i <= found.split_point else names)
        for i, names in enumerate(zip(*found.paths, strict=True), start=1)
    }
    split, generation = found.split_point, candidate.generation
    return {"split_point": split, **layers, "generation": generation, "origin": candidate.origin}


def _experiment(candidates: Iterable[Candidate]) -> list[Any]:
    """The columns of the HParams table."""
    from tensorboard.plugins.hparams import summary_v2 as hparams

    candidates = list(candidates)
    if not candidates:
        return []
    values: dict[str, set[Any]] = {}
    for name, value in itertools.chain(*(_parameters(c).items() for c in candidates)):
        values.setdefault(name, set()).add(value)
    columns = [hparams.HParam(n, hparams.Discrete(sorted(found))) for n, found in values.items()]
    metrics = [
        hparams.Metric(tag) for tag in dict.fromkeys(itertools.chain(*map(_metrics, candidates)))
    ]
    return [hparams.hparams_config_pb(columns, metrics, time_created_secs=0)]


def _candidate(candidate: Candidate) -> Iterator[Any]:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import summary_v2 as hparams

    yield hparams.hparams_pb(_parameters(candidate), str(candidate.number), start_time_secs=0)
    for tag, value in _metrics(candidate).items():
        yield Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def _pictures(run: RunFiles, drawn: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """(tag, PNG or JPEG) of each picture; a tag's first part is the group it is shown in."""
    pictures: Mapping[str, Any] = named(run.pictures) or {}
    for kind in KINDS:
        for i, seen in enumerate(pictures.get(kind, ()), start=1):
            names = pictures["class_names"]
            words = names[seen["label"]]
            if kind == "errors":
                words += f" taken for {names[seen['named'][-1]]} ({100 * seen['sure'][-1]:.0f} %)"
            tag = f"test pictures, {kind}/{i:02d} {words.replace('/', '-')}"
            yield tag, base64.b64decode(seen["picture"])
    confusion = confusion_data(run)
    if confusion and confusion["chart"]:
        side = confusion["chart"]["height"]
        yield "test/confusion matrix", style.to_png({**confusion["chart"], "width": side})
    for name, content in drawn.items():
        yield f"report/{name.removesuffix('.png').replace('_', ' ')}", content


def _image(tag: str, content: bytes) -> Any:
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    width, height = Image.open(io.BytesIO(content)).size
    image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=content)
    return Summary(value=[Summary.Value(tag=tag, image=image)])
