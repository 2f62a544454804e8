"""Where files are: paths given by users, and files that belong to the project."""

import importlib.resources
import os
import re
from pathlib import Path

from neas_tf.common.errors import NeasError, fail, shown

_PATTERN = re.compile(r"[*?\[\\]")  # what TensorFlow's file functions read as a pattern
_HANDLES = "/proc/self/fd"  # Linux: an open folder's other name is <_HANDLES>/<number>
_opened: dict[tuple[int, int], int] = {}  # folders of which `literal_path` has given the other name
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")

# `Path` makes one slash of two. A letter alone is a drive.
_ADDRESS = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.\-]+:/")


def check_local_path(field: str, text: str | os.PathLike[str]) -> None:
    """Refuses an address, such as `gs://bucket/x`, where something is to be written.

    Files are written with the system's own calls, which would make a folder named `gs:` of it.

    Args:
      field: begins the message, such as "--output".
      text: as typed by the user, or a path made of that.

    Raises:
      NeasError: for an address. A local folder with such a name can be given as `./gs:/x`.
    """
    name = os.fspath(text)
    if _ADDRESS.match(name):
        raise NeasError(
            f"{field}: received {shown(name)}, which is an address; expected a path of this "
            "machine, as files are written locally (copy them there afterwards)."
        )


def resolve_user_path(path: str | os.PathLike[str]) -> str:
    """Gives a path from the command line the meaning its user had in mind.

    `bazel run` starts a program in a folder of Bazel's own and names the caller's folder in
    `BUILD_WORKING_DIRECTORY`; a relative path, of an input or an output, means that folder.

    Args:
      path: a path as typed by the user. Absolute paths, addresses such as `gs://bucket/run` and
        the empty string stay as they are; a leading `~` becomes the home folder.

    Returns:
      The path to open. Outside `bazel run` a relative path stays relative.

    Raises:
      NeasError: for a string that no system takes as a path.
    """
    text = os.fspath(path)
    try:
        sound = b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half a character
        sound = False
    if not sound:
        fail("path", text, "one without NUL or half characters")
    if not text or _SCHEME.match(text):
        return text
    text = os.path.expanduser(text)
    folder = os.environ.get("BUILD_WORKING_DIRECTORY")
    if not folder or os.path.isabs(text):
        return text
    return os.path.normpath(os.path.join(folder, text))


def resolve_config_path(path: str | os.PathLike[str]) -> str:
    """As `resolve_user_path`, for settings that are read: `configs/x.yaml` works in any folder.

    Where the caller's folder has no such file, the one that comes with the package is meant.
    """
    found = resolve_user_path(path)
    folder, *parts = Path(os.fspath(path)).parts or ("",)
    if folder == "configs" and ".." not in parts and not os.path.exists(found):
        own = config_file(*parts)
        return str(own) if own.is_file() else found
    return found


def literal_path(path: str | os.PathLike[str]) -> str:
    """A name of the same place that TensorFlow does not read as a pattern.

    Its functions for checkpoints and SavedModels look for files with a glob, which finds none in
    a folder such as `rate[0.1]`, and then say that there are none.

    Args:
      path: a folder, or the prefix of a checkpoint in one.

    Returns:
      The path itself wherever it serves; else one by way of the open folder, for this process.

    Raises:
      NeasError: when the name of a prefix is a pattern, or the system has no other names.
    """
    text = os.fspath(path)
    if not _is_pattern(text) or _SCHEME.match(text):
        return text
    folder, name = (text, "") if os.path.isdir(text) else os.path.split(text)
    if _is_pattern(name) and os.path.exists(f"{text}.index"):
        fail("checkpoint", text, "a prefix whose name has none of *, ?, [ and \\")
    if not _is_pattern(folder) or not os.path.isdir(folder):
        return text
    check_literal("path", folder)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    status = os.fstat(handle)
    # Kept open as long as the process lives: a number that is given back would be another file's.
    known = _opened.setdefault((status.st_dev, status.st_ino), handle)
    if known != handle:
        os.close(handle)
    return os.path.join(_HANDLES, str(known), name) if name else os.path.join(_HANDLES, str(known))


def check_literal(field: str, path: str | os.PathLike[str]) -> None:
    """Raises `NeasError` for a folder that `literal_path` could not serve; it need not exist."""
    if _is_pattern(os.fspath(path)) and not os.path.isdir(_HANDLES):
        raise NeasError(
            f"{field}: received {os.fspath(path)!r}, expected a folder whose path has none of *, ?, "
            "[ and \\, which TensorFlow reads as a pattern on this system."
        )


def _is_pattern(text: str) -> bool:
    """Whether TensorFlow would see a pattern in a path, or no path at all (not UTF-8)."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return _PATTERN.search(text) is not None


def config_file(*parts: str) -> Path:
    """The path of a file that comes with the package, such as `config_file("spaces", "mobile.yaml")`.

    Where the package is installed these are its data, `neas_tf/configs`; in a checkout they lie in
    the folder `configs` beside the package.

    Args:
      *parts: path below `configs`; none gives the folder itself.
    """
    root = Path(str(importlib.resources.files("neas_tf"))) / "configs"
    if not root.is_dir():
        root = Path(project_file("configs"))
    return root.joinpath(*parts)


def project_file(*parts: str) -> str:
    """Returns the path of a file of the project, such as `project_file("docs", "a.md")`.

    Links are not resolved: under Bazel this file is a link into the source tree, and only the
    files beside the link (the runfiles) are declared inputs.

    Args:
      *parts: path below the project's root; none gives the root itself.

    Returns:
      An absolute path; whether the file exists is not checked.
    """
    root = os.path.abspath(__file__)
    for _ in range(3):  # neas_tf/common/paths.py
        root = os.path.dirname(root)
    return os.path.join(root, *parts)
