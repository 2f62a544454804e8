"""Which files of a folder are pictures that can be read, and which say that they lie on a side."""

from __future__ import annotations

import collections
import dataclasses
import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from neas_tf.common.errors import NeasError

# What TensorFlow decodes; the content tells the kind, the name only that a file is a picture.
ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp")
# Files and folders that systems leave among pictures, whose absence nobody minds.
_LITTER = {"thumbs.db", "ehthumbs.db", "desktop.ini", ".ds_store", "icon\r"}
_LITTER_FOLDERS = ("__MACOSX", "@eaDir", "lost+found")
_ORIENTATION = 0x0112
_HEAD = 1 << 18  # EXIF is within the first bytes of a JPEG
_MOST_BYTES = 1 << 25  # of a picture of another kind, where it may be at the end
_NAMED = 5


@dataclasses.dataclass
class Listing:
    """What a folder holds.

    Attributes:
      paths: pictures to read: those of the folder itself first, then those of its sub-folders,
        by name. A name that is no UTF-8 has surrogates, as `os.fsdecode` makes them.
      unusable: (path, what it is) of what has a picture's name and is no file: folders, pipes,
        links to nothing.
      left_out: (path, why) of other things that are not read.
    """

    paths: list[str] = dataclasses.field(default_factory=list)
    unusable: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    left_out: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add_all_but_paths(self, other: Listing) -> None:
        """Takes in what another folder holds beside pictures."""
        self.unusable += other.unusable
        self.left_out += other.left_out

    def said(self) -> str:
        """What is left out, for a line; empty where nothing is."""
        if not self.left_out:
            return ""
        counts = collections.Counter(why for _, why in self.left_out)
        kinds = ", ".join(f"{count} {why}" for why, count in counts.most_common(10))
        kinds += ", …" * (len(counts) > 10)
        return (
            f"{len(self.left_out)} files or folders are not read: {kinds}; such as "
            f"{named([path for path, _ in self.left_out], 2)}; read are files "
            f"{', '.join(ENDINGS)}"
        )


def named(names: list[str], most: int = _NAMED) -> str:
    """The first of some paths, for messages."""
    more = f" and {len(names) - most} more" * (len(names) > most)
    return ", ".join(map(repr, names[:most])) + more


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture which can be read."""
    return name.lower().endswith(ENDINGS)


def is_hidden(name: str) -> bool:
    """Whether a folder's name says that it is none of the user's."""
    return name.startswith(".") or name in _LITTER_FOLDERS


def is_litter(name: str) -> bool:
    """Whether a file's name is that of one which systems write by themselves."""
    return name.lower() in _LITTER


def leads_back(folder: str) -> bool:
    """Whether a folder is a link to one that it lies in."""
    if "://" in folder:
        return False
    inside, target = os.path.realpath(os.path.dirname(folder)), os.path.realpath(folder)
    return os.path.commonpath([inside, target]) == target


def list_pictures(folder: str, field: str = "data.data_dir") -> Listing:
    """Lists the pictures of a folder and of its sub-folders; opens no file.

    Links are followed; a folder that they reach twice is read once.

    Args:
      folder: a path, or an address such as `gs://bucket/folder`.
      field: for messages.

    Raises:
      NeasError: when the folder, or one in it, cannot be read.
    """
    listing, seen = Listing(), _identities_above(folder)
    queue = [folder]
    while queue:
        path = queue.pop()
        if not _is_new(path, seen):
            listing.left_out.append((path, "links to folders already read"))
            continue
        folders = []
        for name, kind in entries(path, field):
            place = os.path.join(path, name)
            if kind == "folder" and not is_picture(name):
                if is_hidden(name):
                    listing.left_out.append((place, "hidden folders"))
                else:
                    folders.append(place)
            elif name.startswith("."):
                if is_picture(name):
                    listing.left_out.append((place, "hidden"))
            elif not is_picture(name):
                if not is_litter(name):
                    ending = os.path.splitext(name)[1].lower()
                    ending = ending if ending.isprintable() and len(ending) < 12 else ""
                    listing.left_out.append((place, ending or "without an ending"))
            elif kind == "file":
                listing.paths.append(place)
            else:
                listing.unusable.append((place, "a folder" if kind == "folder" else kind))
        folders.sort(key=os.path.islink)  # the folder itself counts, not a link to it
        queue += reversed(folders)
    return listing


def entries(folder: str, field: str = "data.data_dir") -> list[tuple[str, str]]:
    """(name, kind) of what is in a folder, by name; 'file', 'folder', or what it is instead.

    Raises:
      NeasError: when the folder cannot be read.
    """
    if "://" in folder:
        return sorted(_remote_entries(folder))
    try:
        with os.scandir(folder) as found:
            return sorted((entry.name, _kind(entry)) for entry in found)
    except OSError as error:
        raise NeasError(
            f"{field}: the folder {folder!r} cannot be read ({error.strerror})."
        ) from None


def _remote_entries(folder: str) -> Iterator[tuple[str, str]]:
    import tensorflow as tf

    for name in tf.io.gfile.listdir(folder):
        plain = name.rstrip("/")
        if plain:
            is_folder = plain != name or (
                not is_picture(plain) and tf.io.gfile.isdir(os.path.join(folder, plain))
            )
            yield plain, "folder" if is_folder else "file"


def _kind(entry: os.DirEntry) -> str:
    try:
        if entry.is_file():
            return "file"
        if entry.is_dir():
            return "folder"
    except OSError:
        pass
    return no_file(entry.path) or "file"


def no_file(path: str) -> str:
    """What lies at a path instead of a file; empty where there is one. Opens nothing."""
    if "://" in path:
        return ""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return "a link to nothing" if os.path.islink(path) else (error.strerror or "unreadable")
    for test, what in (
        (stat.S_ISREG, ""),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
    ):
        if test(mode):
            return what
    return "a device"


def _identities_above(folder: str) -> set[tuple[int, int]]:
    """Of the folders that a folder lies in: a link to one of them would lead round in a circle."""
    if "://" in folder:
        return set()
    result: set[tuple[int, int]] = set()
    path = os.path.realpath(folder)
    while (parent := os.path.dirname(path)) != path:
        path = parent
        _is_new(path, result)
    return result


def _is_new(path: str, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder is not among those seen; it is then."""
    if "://" in path:
        return True
    try:
        status = os.stat(path)
    except OSError:
        return True  # reading it says what is wrong
    key = (status.st_dev, status.st_ino)
    new = key not in seen
    seen.add(key)
    return new


def orientation(encoded: bytes) -> int:
    """EXIF's orientation of an encoded picture, 1..8; 1 where it says nothing or is no picture.

    For a JPEG the first 256 KiB are enough.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as picture:
            # Pillow decodes a PNG to find what comes after its pixels.
            if picture.format == "PNG" and b"eXIf" not in encoded:
                return 1
            value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged header raises errors of many kinds, and is no matter here
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def head(path: str) -> bytes:
    """As much of a picture's file as `orientation` needs; empty where it cannot be read."""
    try:
        if "://" in path:
            import tensorflow as tf

            with tf.io.gfile.GFile(path, "rb") as stream:
                return _head_of(stream)
        with open(path, "rb") as stream:
            return _head_of(stream)
    except Exception:  # reading it for its pixels says what is wrong
        return b""


def _head_of(stream: BinaryIO) -> bytes:
    content = stream.read(_HEAD)
    return content if content[:2] == b"\xff\xd8" else content + stream.read(_MOST_BYTES)
