"""What a pipeline says of bad data in the middle of its work, as the one error for bad input."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

import tensorflow as tf
from absl import logging

from neas_tf.common.errors import NeasError

# Begin the messages of the checks inside a pipeline's graph.
STOPPED = "data.on_bad_record: it is stop, and these cannot be decoded"
OUTSIDE = "data.num_classes, data.label_offset: a label lies outside"
NOTHING = "data: no image of a batch can be decoded, nor any before it"
_NAMED = 5  # damaged images that a message names
_OURS = re.compile(
    "|".join(map(re.escape, (STOPPED, OUTSIDE, NOTHING)))
    + "|Could not parse example|Feature: |Key: "
)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turns TensorFlow's errors about the data into a `NeasError`; others pass."""
    try:
        yield
    except tf.errors.DataLossError as error:
        raise NeasError(f"data: the records are damaged ({reason(error)}).") from error
    except (tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        found = _OURS.search(error.message or "")
        if found is None:
            raise
        raise NeasError(f"{_from(error.message, found.start())}.") from error


def batches_of(dataset: tf.data.Dataset) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """The batches of a data set; see `failures`."""
    with failures():
        yield from dataset


def report_damaged(what: str, names: Sequence[str], total: int, on_bad_record: str) -> None:
    """Logs which of some images cannot be decoded, if any, and are left out.

    Args:
      what: they are.
      names: of the damaged ones, for messages.
      total: how many images there are.
      on_bad_record: 'skip', or 'stop' for an error instead.

    Raises:
      NeasError: with 'stop'.
    """
    if not names:
        return
    named = "; ".join(names[:_NAMED])
    named += f"; and {len(names) - _NAMED} more" * (len(names) > _NAMED)
    if on_bad_record == "stop":
        raise NeasError(
            f"data.on_bad_record: received 'stop', and of the {total} {what} these cannot "
            f"be decoded: {named}; expected skip, or sound images: mend or remove them."
        )
    logging.warning("%s: %d of %d are damaged and left out: %s.", what, len(names), total, named)


def _from(message: str, start: int) -> str:
    """The sentence that begins there, with what the check showed beside it."""
    text = message[start:].split("\n\t [[")[0].split("[Op:")[0].replace("] [", " ")
    return " ".join(text.split())[:1000].rstrip(".]")


def reason(error: tf.errors.OpError) -> str:
    """One line of an error, without the names of TensorFlow's nodes."""
    text = re.sub(r"\{\{.*?\}\}", "", error.message or "").split("[Op:")[0]
    return text.strip().split("\n")[0][:200].rstrip(".")
