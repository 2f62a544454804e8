"""What tf_keras and Keras 3 must be set to, whatever keras.json and KERAS_BACKEND say.

Of these only the backend of Keras 3 is the user's choice, outside of the project's commands.

Importing the package `neas_tf` calls `settle`, before any of its modules can import either library.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_BACKEND = "KERAS_BACKEND"
_HOME = "KERAS_HOME"
# Backends that train, by the name of their package.
_BACKENDS = ("tensorflow", "jax", "torch")
_VALUES = {"image_data_format": "channels_last", "floatx": "float32", "epsilon": 1e-07}
# Where each library keeps these settings; TensorFlow's own old copy reads keras.json too.
_PLACES = {"keras": "config", "tf_keras": "backend", "tensorflow.python.keras.backend": ""}
# What TensorFlow and Keras import where it happens to be installed, for functions that no command of
# ours calls. It is 40 % of the time that their import takes, and 0.25 GB.
_OPTIONAL = ("jax", "matplotlib", "pandas", "sklearn")

_tensorflow_only = False


class _Finder(importlib.abc.MetaPathFinder):
    """Has the libraries imported without the user's settings, and then set."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if name not in _PLACES and name != "tensorflow":
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


def use_tensorflow() -> None:
    """Has Keras 3 run on TensorFlow, as the project's own commands need it, whatever the user set.

    TensorFlow and Keras then do without the libraries in `_OPTIONAL`, which can be imported as ever
    once they are there.
    """
    global _tensorflow_only
    _tensorflow_only = True


def _backend() -> str:
    """What Keras 3 runs on: as the user says in KERAS_BACKEND, else in keras.json.

    It must be installed and train; anything else would end the import, or every `fit`.
    """
    if _tensorflow_only:
        return "tensorflow"
    wanted = os.environ.get(_BACKEND)
    if not wanted:
        try:
            found = json.loads(_json_file(os.environ.get(_HOME)).read_text("utf-8"))
            wanted = found.get("backend") if isinstance(found, dict) else None
        except (OSError, ValueError, RecursionError):
            wanted = None
    installed = wanted in _BACKENDS and importlib.util.find_spec(wanted) is not None
    return wanted if wanted is not None and installed else "tensorflow"


def overridden() -> list[str]:
    """The settings of the user that count for nothing here, one text each."""
    backend = os.environ.get(_BACKEND, "tensorflow")
    odd = [] if backend == "tensorflow" else [f"{_BACKEND} is {backend!r}, set to 'tensorflow'"]
    return odd + _odd(os.environ.get(_HOME))


def _import(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    with _sound_environment(), _without(_OPTIONAL if _tensorflow_only else ()):
        execute(module)
    if module.__name__ in _PLACES:
        _set(module)


@contextlib.contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Within it, libraries that are not imported yet are as if they were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


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
    backend = _backend()
    with tempfile.TemporaryDirectory() if _odd(before[_HOME]) else contextlib.nullcontext() as home:
        os.environ[_BACKEND] = backend
        if home:
            os.environ[_HOME] = home
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def _json_file(home: str | None) -> Path:
    return Path(
        os.path.expanduser(os.path.join(home if home is not None else "~/.keras", "keras.json"))
    )


def _odd(home: str | None) -> list[str]:
    """What a keras.json says that is anything else than what is needed; none where there is none."""
    path = _json_file(home)
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
