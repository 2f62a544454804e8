"""The experiments: recipes, each a YAML file whose settings count over the defaults.

Those in configs/experiments are registered with Model Garden by the names of their files.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from official.core import exp_factory

from neas_tf.common.errors import unknown_name
from neas_tf.common.paths import config_file
from neas_tf.config import parse
from neas_tf.config.settings import NeasConfig

_ENDINGS = (".yaml", ".yml", ".json")


def read_recipe(path: str | os.PathLike[str]) -> NeasConfig:
    """The defaults with the settings of a file over them.

    Raises:
      NeasError: for a file that cannot be read, an unknown key, or a value of the wrong kind.
    """
    config = NeasConfig()
    settings = parse.load_file(os.fspath(path))
    parse.put_settings(config, settings)
    return config


def find(experiment: str, field: str = "experiment") -> NeasConfig:
    """The settings of an experiment.

    Args:
      experiment: of `NAMES`, or the path of a recipe of one's own, a YAML file.
      field: begins the message where there is none.

    Raises:
      NeasError: for an unknown name, and as `read_recipe`.
    """
    if experiment.endswith(_ENDINGS):
        return read_recipe(experiment)
    if experiment not in NAMES:
        unknown_name(field, experiment, NAMES)
    return exp_factory.get_exp_config(experiment)


def _factory(path: os.PathLike[str]) -> Callable[[], NeasConfig]:
    return lambda: read_recipe(path)


_RECIPES = {path.stem: path for path in sorted(config_file("experiments").glob("*.yaml"))}
NAMES = tuple(_RECIPES)
for _name, _path in _RECIPES.items():
    exp_factory.register_config_factory(_name)(_factory(_path))
