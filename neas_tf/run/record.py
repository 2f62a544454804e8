"""run.json: what a run is, and with which code and libraries each of its sessions worked.

What a run is (seed, K, space, data, budget) is compared, with the settings themselves, before any
stage starts (`identity.Identity.check`). Code and libraries may change between two
sessions: the results then need not be those of one session, so that it is said and kept.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import neas_tf
from neas_tf.common.errors import NeasError
from neas_tf.common.files import difference, read_json, write_json_atomic
from neas_tf.ensemble.store import library_versions

FORMAT = "neas-run/1"
FILE = "run.json"
_LIBRARIES = ("tensorflow", "tf-keras", "tf-models-official", "numpy")


@functools.cache
def code_digest() -> str:
    """The first 16 digits of the SHA-256 of this package's source files, names included."""
    root, digest = Path(neas_tf.__file__).parent, hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def digest_of(value: Any) -> str:
    """The first 16 digits of the SHA-256 of a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def software() -> dict[str, str]:
    """What may change between sessions: versions of code, Python and libraries."""
    return {"code": code_digest(), **library_versions(*_LIBRARIES)}


def note_sitting(folder: Path, run: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Adds a session to a run's record; what `run` says replaces what the record said.

    Args:
      folder: of the run.
      run: what the run is, as JSON.
      settings: the resolved config, of which a digest is kept.

    Returns:
      What differs from the software of the session before, one short text each.
    """
    path, now = folder / FILE, software()
    began = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    sessions = _sessions(path)
    before = sessions[-1].get("software", now) if sessions else now
    session = {"began": began, "settings": digest_of(settings), "software": now}
    value = {"format": FORMAT, "run": dict(run), "sittings": [*sessions, session]}
    write_json_atomic(path, value)
    return difference(before, now)


def _sessions(path: Path) -> list[dict[str, Any]]:
    """Those noted so far; none where the record is missing or no longer one."""
    if not path.exists():
        return []
    try:
        value = read_json(path, "run")
    except NeasError:
        return []
    found = value.get("sittings") if isinstance(value, Mapping) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        return []
    return found


@contextlib.contextmanager
def timed(folder: Path, stage: str, writes: bool) -> Iterator[None]:
    """Adds the wall time of a block to timing.json, over all sessions.

    Args:
      folder: of the run.
      stage: whose time it is.
      writes: whether this process writes the run's files.
    """
    begin = time.monotonic()
    try:
        yield
    except BaseException:
        # A disk that is full for the stage is full for this as well.
        with contextlib.suppress(OSError):
            _add_time(folder, stage, time.monotonic() - begin, writes)
        raise
    _add_time(folder, stage, time.monotonic() - begin, writes)


def _add_time(folder: Path, stage: str, seconds: float, writes: bool) -> None:
    if writes:
        path = folder / "timing.json"
        times: dict[str, float] = {}
        with contextlib.suppress(NeasError):  # lost times are no reason to stop
            times = read_json(path, "timing")
        times[stage] = round(times.get(stage, 0.0) + seconds, 1)
        write_json_atomic(path, times)
