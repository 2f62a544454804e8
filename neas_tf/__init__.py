"""NEAS for TensorFlow: one-shot search for small ensembles that share their first layers.

Importing the package loads nothing heavy: the names below are imported when they are asked for.
"""

import importlib
from typing import TYPE_CHECKING

from neas_tf.common import keras_settings, moved

if TYPE_CHECKING:
    from neas_tf import applications
    from neas_tf.api.result import Result, load
    from neas_tf.api.search import search
    from neas_tf.config.parse import load_config
    from neas_tf.cost.budget import Budget
    from neas_tf.cost.budget_sampling import BudgetSampler
    from neas_tf.cost.constraint_functions import Constraint
    from neas_tf.cost.cost_table import CostTable
    from neas_tf.cost.latency_table import load_table
    from neas_tf.ensemble.model import build_ensemble
    from neas_tf.ensemble.store import load_model, save_model
    from neas_tf.operators import Operator, register
    from neas_tf.report import read_run, write_report
    from neas_tf.run.context import open_run
    from neas_tf.run.pipeline import make_strategy, run_pipeline
    from neas_tf.space.architecture import Architecture
    from neas_tf.space.search_space import SearchSpace, Stage
    from neas_tf.space.shrunk_space import ShrunkSpace
    from neas_tf.space.zoo import load_architecture, load_space
    from neas_tf.supernet.inheritance import inherited_ensemble
    from neas_tf.supernet.model import Supernet

__version__ = "0.1.0"

__all__ = [
    "Architecture",
    "Budget",
    "BudgetSampler",
    "Constraint",
    "CostTable",
    "Operator",
    "Result",
    "SearchSpace",
    "ShrunkSpace",
    "Stage",
    "Supernet",
    "applications",
    "build_ensemble",
    "inherited_ensemble",
    "load",
    "load_architecture",
    "load_config",
    "load_model",
    "load_space",
    "load_table",
    "make_strategy",
    "open_run",
    "read_run",
    "register",
    "run_pipeline",
    "save_model",
    "search",
    "write_report",
]

keras_settings.settle()
moved.watch()
_find = moved.face(
    __name__,
    {
        "neas_tf.applications": "applications",
        "neas_tf.api.result": "Result load",
        "neas_tf.config.parse": "load_config",
        "neas_tf.cost.budget": "Budget",
        "neas_tf.cost.budget_sampling": "BudgetSampler",
        "neas_tf.cost.constraint_functions": "Constraint",
        "neas_tf.cost.cost_table": "CostTable",
        "neas_tf.cost.latency_table": "load_table",
        "neas_tf.ensemble.model": "build_ensemble",
        "neas_tf.ensemble.store": "load_model save_model",
        "neas_tf.operators": "Operator register",
        "neas_tf.report": "read_run write_report",
        "neas_tf.run.context": "open_run",
        "neas_tf.run.pipeline": "make_strategy run_pipeline",
        "neas_tf.space.architecture": "Architecture",
        "neas_tf.space.search_space": "SearchSpace Stage",
        "neas_tf.space.shrunk_space": "ShrunkSpace",
        "neas_tf.space.zoo": "load_architecture load_space",
        "neas_tf.supernet.inheritance": "inherited_ensemble",
        "neas_tf.supernet.model": "Supernet",
    },
)


def __getattr__(name: str) -> object:
    if name == "search":  # the package, which can be called
        return importlib.import_module("neas_tf.search")
    return _find(name)
