"""Where a step on the CPU spends its time: TensorFlow's profile, summed by type of operation."""

from __future__ import annotations

import collections
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Event = tuple[int, int, str]  # start, end (picoseconds), name


def own_times(events: Iterable[Event]) -> collections.Counter[str]:
    """Picoseconds by name, without those of the events inside (of one thread)."""
    total: collections.Counter[str] = collections.Counter()
    stack: list[list[Any]] = []  # [end, name, own time]
    for begin, end, name in sorted(events, key=lambda event: (event[0], -event[1])):
        while stack and stack[-1][0] <= begin:
            _, done, own = stack.pop()
            total[done] += own
        if stack:
            stack[-1][2] -= min(end, stack[-1][0]) - begin
        stack.append([end, name, end - begin])
    for _, name, own in stack:
        total[name] += own
    return total


def operation_type(name: str) -> str | None:
    """'a/b/Conv2D:Conv2D' → 'Conv2D'; None for events that are no operation of a graph."""
    path, colon, kind = name.rpartition(":")
    if not colon or not kind.isidentifier() or not path or "::" in name:
        return None
    return kind


def seconds_by_type(folder: str) -> dict[str, Any]:
    """The profile that `tf.profiler.experimental` left in a folder.

    Returns:
      `seconds`: {type: seconds} of the operations, largest first, without what runs inside of
      them; `counts`: how many ran.
    """
    # No public module has this format.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    total: collections.Counter[str] = collections.Counter()
    counts: collections.Counter[str] = collections.Counter()
    for path in Path(folder).rglob("*.xplane.pb"):
        found = xplane_pb2.XSpace()
        found.ParseFromString(path.read_bytes())
        for plane in found.planes:
            names = {key: value.name for key, value in plane.event_metadata.items()}
            for line in plane.lines:
                events = []
                for event in line.events:
                    kind = operation_type(names[event.metadata_id])
                    if kind is not None:
                        begin = line.timestamp_ns * 1000 + event.offset_ps
                        events.append((begin, begin + event.duration_ps, kind))
                        counts[kind] += 1
                total.update(own_times(events))
    seconds = {kind: round(ps / 1e12, 6) for kind, ps in total.most_common()}
    return {"seconds": seconds, "counts": dict(counts.most_common())}
