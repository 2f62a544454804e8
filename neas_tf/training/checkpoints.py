"""Checkpoints of a stage: which one is the newest whole one, and going back to it.

TensorFlow renames a checkpoint's files when they are written, then replaces the file `checkpoint`
that names the newest. A power cut can still leave a torn one. Every tensor has a checksum in the
index, so that reading all of them tells a whole checkpoint from a damaged one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import tensorflow as tf

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import write_text_atomic
from neas_tf.common.paths import literal_path

_STATE = "checkpoint"
_NODES = re.compile(r"\{\{.*?\}\} ?| ?\[Op:\w+\]| ?\[\[.*?\]\]")
_INDEX = re.compile(r"ckpt-(\d+)\.index")
_CHUNK = 1 << 24  # bytes
# What a file system answers that is no sign of damage: nothing may be thrown away for it.
_ACCESS = (
    tf.errors.PermissionDeniedError,
    tf.errors.ResourceExhaustedError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)


def latest_step(folder: str | os.PathLike[str]) -> int:
    """The step of a folder's newest checkpoint, whole or not; 0 without one."""
    return max(_steps(Path(folder)), default=0)


def damage(folder: str | os.PathLike[str], step: int) -> str:
    """Why a checkpoint cannot be read, '' when it can; reads all of it.

    Raises:
      NeasError: when the system refuses to read it, which says nothing about its content.
    """
    prefix = Path(folder) / f"ckpt-{step}"
    try:
        reader = tf.train.load_checkpoint(literal_path(prefix))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)
    except _ACCESS as error:
        raise _unreadable(prefix, error) from None
    # The reader turns some faults into exceptions of Python.
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
        _check_access(prefix)
        return reason_of(error)
    return ""


def _check_access(prefix: Path) -> None:
    """Raises `NeasError` unless the system gives all that a checkpoint's files hold.

    TensorFlow calls a table that it may not open damaged.
    """
    try:
        for path in _files(prefix.parent, prefix.name):
            with open(path, "rb") as stream:
                while stream.read(_CHUNK):
                    pass
    except OSError as error:
        raise _unreadable(prefix, error) from None


def _unreadable(prefix: Path, error: BaseException) -> NeasError:
    return NeasError(f"checkpoint {str(prefix)!r}: cannot be read ({reason_of(error)}).")


def _files(folder: Path, name: str) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(f"{name}.")]


def settle(folder: str | os.PathLike[str]) -> int:
    """Makes the newest whole checkpoint the one that a training continues from.

    Damaged ones after it are removed, with a line that says so; never a whole one, nor one that
    the system does not let us read. One that is whole, but not named in `checkpoint`, is taken
    only where no other is. Only for who holds the run's lock.

    Returns:
      Its step; 0 where there is none, and the training begins again.

    Raises:
      NeasError: when files cannot be read, or not be removed.
    """
    folder = Path(folder)
    steps, named = sorted(_steps(folder), reverse=True), _named(folder)
    bad: dict[int, str] = {}
    good = _newest_whole(folder, steps, bad)
    known = named is not None
    if not bad and (known or not steps):
        return good
    if not good:
        steps = sorted(_lying(folder), reverse=True)
        good = _newest_whole(folder, [step for step in steps if step not in bad], bad)
    for step, reason in bad.items():
        after = f"continues from step {good:,}" if good else "begins again at step 0"
        console.say(
            f"   Checkpoint {str(folder / f'ckpt-{step}')!r} is damaged ({reason}): {after}."
        )
    if not known:
        console.say(
            f"   {str(folder / _STATE)!r} was lost; the newest checkpoint is step {good:,}."
        )
    # A damaged one could be taken for the newest later on.
    _keep(folder, [step for step in steps if step <= good and step not in bad], bad)
    return good


def _newest_whole(folder: Path, steps: Iterable[int], bad: dict[int, str]) -> int:
    """The first of the steps whose checkpoint is whole, 0 without; notes the others in `bad`."""
    for step in steps:
        reason = damage(folder, step)
        if not reason:
            return step
        bad[step] = reason
    return 0


def drop_newest(folder: str | os.PathLike[str]) -> int:
    """Removes the newest checkpoint. Returns the step of the one before, 0 without one.

    Raises:
      NeasError: when files cannot be removed.
    """
    *kept, dropped = sorted(_steps(Path(folder)))
    _keep(Path(folder), kept, [dropped])
    return kept[-1] if kept else 0


def _keep(folder: Path, kept: Iterable[int], dropped: Iterable[int]) -> None:
    """Names some checkpoints in `checkpoint`, then removes others."""
    # Relative, as CheckpointManager writes them: a run's folder may be moved.
    names = [f"ckpt-{step}" for step in sorted(kept)]
    try:
        if names:
            lines = [f'model_checkpoint_path: "{names[-1]}"']
            lines += [f'all_model_checkpoint_paths: "{name}"' for name in names]
            # Without times a CheckpointManager would not take them for its own.
            times = [(folder / f"{name}.index").stat().st_mtime for name in names]
            lines += [f"all_model_checkpoint_timestamps: {time:.3f}" for time in times]
            lines.append("last_preserved_timestamp: 0.0")
            write_text_atomic(folder / _STATE, "".join(f"{line}\n" for line in lines))
        else:
            (folder / _STATE).unlink(missing_ok=True)
        for step in dropped:
            for path in _files(folder, f"ckpt-{step}"):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise NeasError(
            f"checkpoint: {str(folder)!r} cannot be written ({reason_of(error)})."
        ) from None


def _steps(folder: Path) -> list[int]:
    """Steps of the checkpoints that `checkpoint` names; without it, of those that lie there."""
    named = _named(folder)
    return _lying(folder) if named is None else named


def _named(folder: Path) -> list[int] | None:
    """None where the file is missing, no such list or names none that is there."""
    try:
        (folder / _STATE).read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(folder / _STATE, error) from None
    try:
        state = tf.train.get_checkpoint_state(str(folder))
    except (tf.errors.OpError, ValueError):  # no text at all, or one that names nothing
        return None
    paths = [*state.all_model_checkpoint_paths, state.model_checkpoint_path] if state else []
    found = {int(m[1]) for m in (re.search(r"-(\d+)$", path) for path in paths) if m}
    there = found & set(_lying(folder))
    return sorted(there) or None


def _lying(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    matches = (_INDEX.fullmatch(path.name) for path in folder.iterdir())
    return sorted(int(match[1]) for match in matches if match)


def reason_of(error: BaseException) -> str:
    """What went wrong in a few words, without TensorFlow's names of nodes and temporary files."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    text = _NODES.sub("", " ".join(str(error).split()))
    *_, text = text.split("; ")
    return text[:160] or type(error).__name__
