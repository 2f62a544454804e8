"""Names that lead elsewhere or nowhere: lazy faces, modules by old names, settings that are no more.

Scripts and operator files of users of version 0.1 name modules that have moved since:
those names still import, with a DeprecationWarning, and are the modules themselves.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import runpy
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from neas_tf.common.errors import fail

# Package: its modules, each as old=new; without "neas_tf." before the old name, but for others.
_PACKAGES = {
    "neas_tf": "families=operators stages=run",
    "neas_tf.common": "errors files differences=files paths yaml_text folder_lock console command_line stopping=command_line normalisation keras_settings class_names",
    "neas_tf.operators": "families.base=base families.mbconv=mbconv families.fused_mbconv=fused_mbconv families.universal_bottleneck=universal_bottleneck",
    "neas_tf.space": "space=search_space architecture zoo shrunk_space sampling",
    "neas_tf.cost": "cost=cost_table budget budget_sampling latency_table latency_plan",
    "neas_tf.ensemble": "ensemble=model blocks=layers rewrites model_store=store confusion torch_names=torch_weight_names torch_file graph_memory detection.levels=levels",
    "neas_tf.supernet": "supernet=model searchable_layer supernet_layers=fixed_layers row_layout operator_program=layer_program operator_passes functional convolutions masked_sgd inherit=inheritance grappler=switches",
    "neas_tf.shrinking": "measurements scoring=diversity shrinking=drops shrink_stage=shrink",
    "neas_tf.search": "evolution variation pareto search_state=history evaluation prefix_tree layer_functions",
    "neas_tf.config": "config=settings parse_config=parse experiments resolving=resolve",
    "neas_tf.training": "tasks training_loop waiting averaging=optimizers checkpoints divergence rollbacks accuracy",
    "neas_tf.export": "exporting=formats export_checks=checks export_files=artifacts export_images=images serving flat_model=flat_graph quantized_model=quantization_aware pruned_model=pruning fine_tuning fine_tuning_folder",
    "neas_tf.export.tflite": "tflite_conversion=conversion quantizing tflite_files=inspection tflite_metadata=metadata",
    "neas_tf.latency": "latency_models=models latency_timing=timing latency_work=measurement latency_fit=fit benchmark_profile=phone_profile",
    "neas_tf.run": "pipeline run_context=context run_record=record preflight cluster stages.supernet_stage=supernet_stage stages.search_stage=search_stage stages.retrain_stage=retrain_stage stages.export_stage=export_stage",
    "neas_tf.data": "data.failures=bad_records",
    "neas_tf.data.reading": "pictures data.sources=sources data.folders=folders data.images=images data.decoding=decoding data.contents=contents data.inspection=inspection",
    "neas_tf.study": "study.running=runner study.trained=path_differences",
    "neas_tf.study.tables": "study.catalogue=catalogue study.names=names study.plan=plan study.correlations=correlations study.diversity=diversity study.frontier=frontier study.homogeneous=homogeneous study.paths=paths study.ranking=ranking study.searcher=searcher study.sharing=sharing",
    "neas_tf.detection.pictures": "detection.annotations=annotations detection.records=records detection.labels=labels detection.letterbox=letterbox detection.drawing=drawing detection.matching=matching detection.evaluations=evaluations",
    "neas_tf.detection": "detection.backbone=backbone detection.checks=checks detection.config=config detection.experiments=experiments detection.initialising=initialising detection.macs=macs detection.task=task",
    "neas_tf.detection.deployment": "detection.exporting=exporting detection.serving=serving detection.quantizing=quantizing detection.running=running",
    "neas_tf.export.commands": "export.common=common",
    "neas_tf.commands": "describe evaluate measure_latency convert_torch",
}


class _Removed(NamedTuple):
    """A setting that is no more.

    Attributes:
      unmissed: the value that nobody misses, which is passed over without a word; None for all.
      words: on another one: what is expected instead of it, or why it is passed over.
      refused: whether another one is refused, because results depended on it.
    """

    unmissed: Any
    words: str
    refused: bool = True


_RACES = "it left out: races are no more; search.fitness=halving looks again at the best"
_REMOVED = {
    "search": {"racing": _Removed(False, _RACES), "racing_error": _Removed(None, _RACES)},
    "workers": {
        "silence_seconds": _Removed(
            30,  # its default, which params.yaml of every run had
            "TensorFlow alone decides after how many seconds of silence a worker is lost",
            refused=False,
        )
    },
}

# What a setting was before it was one, where its default is another: `params.yaml` of old runs lacks it.
FORMER = {"search": {"fitness": "accuracy"}}


def with_former(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run, nested, with what was so before there was a setting for it."""
    return {
        name: {**FORMER[name], **value} if name in FORMER and isinstance(value, Mapping) else value
        for name, value in settings.items()
    }


def without_removed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings, nested, without those that are no more, as files of old runs have them.

    Raises:
      NeasError: for one on which results depended.
    """
    result = dict(settings)
    for section, names in _REMOVED.items():
        given = result.get(section)
        if not isinstance(given, Mapping):
            continue
        for name, removed in names.items():
            if name not in given or removed.unmissed in (None, given[name]):
                continue
            if removed.refused:
                fail(f"{section}.{name}", given[name], removed.words)
            from absl import logging  # `neas doctor` runs where absl is missing

            logging.warning("%s.%s is passed over: %s.", section, name, removed.words)
        result[section] = {name: value for name, value in given.items() if name not in names}
    return result


def _table() -> dict[str, str]:
    table = {}
    for package, modules in _PACKAGES.items():
        for entry in modules.split():
            old, _, new = entry.partition("=")
            whole = old if old.startswith(("detection.", "export.")) else f"neas_tf.{old}"
            table[whole] = f"{package}.{new or old}"
    return table


MOVED = _table()
# Without those whose old name is a package of today.
_OLD = {new: old for old, new in MOVED.items() if not new.startswith(f"{old}.")}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives an old name the module of the new one; and a new name what was put under the old one.

    The second is for tests of users that put a substitute into `sys.modules`.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if MOVED.get(name) in _OLD or _OLD.get(name) in sys.modules:
            found = importlib.util.find_spec(MOVED[name]) if name in MOVED else None
            return importlib.machinery.ModuleSpec(
                name, self, origin=found.origin if found else None
            )
        return None

    def get_code(self, name: str) -> Any:
        """The code of the new name, for `python -m` of an old one."""
        spec = importlib.util.find_spec(MOVED[name])
        return spec.loader.get_code(MOVED[name])  # type: ignore[union-attr]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        if spec.name not in MOVED:
            return sys.modules[_OLD[spec.name]]
        new = MOVED[spec.name]
        warnings.warn(f"{spec.name} is {new} now.", DeprecationWarning, stacklevel=2)
        module = importlib.import_module(new)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It ran under its own name; importlib has just overwritten what it said of itself."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state or module.__spec__


def watch() -> None:
    """Has the import system know the old names."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def names_of(package: str, module: str) -> Callable[[str], Any]:
    """`__getattr__` of a package that has the name of a module of old: gives that one's names.

    Args:
      package: such as `neas_tf.space`.
      module: the file in it that holds them now, such as `search_space`.
    """

    def find(name: str) -> Any:
        if not name.startswith("__") and importlib.util.find_spec(f"{package}.{name}") is None:
            found = importlib.import_module(f"{package}.{module}")
            if hasattr(found, name):
                return getattr(found, name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


def face(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """`__getattr__` of a package whose names are imported when they are asked for.

    Args:
      package: such as `neas_tf`.
      names: by module, with spaces between them; a package's own name is the package.
    """
    homes = {name: module for module, text in names.items() for name in text.split()}

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(homes[name])
        value = module if homes[name] == f"{package}.{name}" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return find


def make_callable(package: str, module: str, function: str) -> None:
    """Has a package's own name be a function too, which is imported when it is called.

    Args:
      package: such as `neas_tf.search`, of which the import system makes an attribute of `neas_tf`.
      module: that holds the function.
      function: its name.
    """

    class Package(ModuleType):
        def __call__(self, *arguments: Any, **keywords: Any) -> Any:
            return getattr(importlib.import_module(module), function)(*arguments, **keywords)

    sys.modules[package].__class__ = Package


def command(name: str, module: str) -> None:
    """A command's file in `detection` or `export`: run, it is the command; imported, its module.

    Args:
      name: `__name__` of the file.
      module: that implements it.
    """
    if name == "__main__":
        runpy.run_module(module, run_name=name, alter_sys=True)
    else:
        sys.modules[name] = importlib.import_module(module)
