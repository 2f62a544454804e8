"""Names of the classes, by id."""

from __future__ import annotations

from pathlib import Path

from neas_tf.errors import NeasError
from neas_tf.paths import project_file, resolve_user_path


def read_labels(path: str | None = None) -> list[str]:
    """Names of a text file, one a line, the first that of id 0; without a path COCO's 91.

    Raises:
      NeasError: when the file cannot be read.
    """
    file = (
        resolve_user_path(path) if path else project_file("configs", "detection", "coco_labels.txt")
    )
    try:
        return Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NeasError(f"labels: {file!r} cannot be read ({error}).") from None
