"""What tf_keras and Keras 3 must be set to, whatever keras.json and KERAS_BACKEND say.

Importing the package `neas_tf` calls `settle`, before any of its modules can import either library.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from neas_tf.common.errors import NeasError

_BACKEND = "KERAS_BACKEND"
_HOME = "KERAS_HOME"
_VALUES = {"image_data_format": "channels_last", "floatx": "float32", "epsilon": 1e-07}
# Where each library keeps these settings; TensorFlow's own old copy reads keras.json too.
_PLACES = {"keras": "config", "tf_keras": "backend", "tensorflow.python.keras.backend": ""}


class _Finder(importlib.abc.MetaPathFinder):
    """Has the libraries imported without the user's settings, and then set."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name not in _PLACES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = functools.partial(_import, execute)  # type: ignore
        return spec


def settle() -> None:
    """Sets both libraries, those that are imported already and those that will be."""
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    sys.meta_path.insert(0, _Finder())
    for name in _PLACES:
        if name in sys.modules:
            _set(sys.modules[name])


def check_backend(keras: ModuleType) -> None:
    """Raises where Keras 3 was imported before this package, with another backend."""
    if (found := keras.backend.backend()) != "tensorflow":
        raise NeasError(
            f"{_BACKEND}: Keras runs on {found!r} in this process, expected is 'tensorflow'; import "
            "neas_tf before keras."
        )


def overridden() -> list[str]:
    """The settings of the user that count for nothing here, one text each."""
    backend = os.environ.get(_BACKEND, "tensorflow")
    odd = [] if backend == "tensorflow" else [f"{_BACKEND} is {backend!r}, set to 'tensorflow'"]
    return odd + _odd(os.environ.get(_HOME))


def _import(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    with _sound_environment():
        execute(module)
    _set(module)


def _set(module: ModuleType) -> None:
    place = _PLACES[module.__name__]
    settings = getattr(module, place, None) if place else module
    for name, value in _VALUES.items():
        setter = getattr(settings, f"set_{name}", None)  # None where it is only being imported
        if setter is not None:
            setter(value)


@contextlib.contextmanager
def _sound_environment() -> Iterator[None]:
    """The environment of an import: unsound settings would end it, or choose another backend."""
    before = {name: os.environ.get(name) for name in (_BACKEND, _HOME)}
    with tempfile.TemporaryDirectory() if _odd(before[_HOME]) else contextlib.nullcontext() as home:
        os.environ[_BACKEND] = "tensorflow"
        if home:
            os.environ[_HOME] = home
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _odd(home: str | None) -> list[str]:
    """What a keras.json says that is anything else than what is needed; none where there is none."""
    folder = home if home is not None else "~/.keras"
    path = Path(os.path.expanduser(os.path.join(folder, "keras.json")))
    try:
        if not path.exists():
            return []
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return [f"{path}: not JSON that can be read"]
    if not isinstance(found, dict):
        return [f"{path}: no mapping"]
    needed = {**_VALUES, "backend": "tensorflow", "nnx_enabled": False}
    return [
        f"{path}: {name} is {found[name]!r}, set to {value!r}"
        for name, value in needed.items()
        if found.get(name, value) != value
    ]
