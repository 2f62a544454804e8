"""`neas.search`: from data and a budget to a trained, exported ensemble, in one call."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.api import plan as plans
from neas_tf.api.inputs import data_settings, facts_of
from neas_tf.api.latency import fit_latency
from neas_tf.api.result import Result
from neas_tf.common import console
from neas_tf.common.errors import NeasError, fail, unknown_name
from neas_tf.common.files import told, write_json_atomic
from neas_tf.common.paths import check_local_path, resolve_user_path
from neas_tf.config.parse import apply_override, load_config, parse_override, put_settings
from neas_tf.config.settings import NeasConfig, search_space
from neas_tf.cost.constraint_functions import Constraint, settings_of
from neas_tf.cost.quantities import with_quantities

RECIPE = "neas_own_data"
FORMAT = "neas-plan/1"
# Sections whose settings may be named without their section, where only one of them has the name.
_SHORT = ("search", "data", "space")


def search(
    data: Any,
    *,
    test: Any = None,
    validation: Any = None,
    model_dir: str | os.PathLike[str] = "neas_run",
    measure: bool = False,
    constraints: Sequence[Constraint | str] = (),
    params_override: str | Mapping[str, Any] = "",
    **settings: Any,
) -> Result:
    """Finds, trains and exports an ensemble for these data under a budget.

    What is left open follows from the data and the budget; it is printed with its reason before the
    work and kept in `model_dir/plan.json`. A call that was interrupted continues with the same line.

    Args:
      data: a folder of pictures (`<class>/*.jpg`, or `train/<class>/` and `test/<class>/`, with or
        without `validation/<class>/`); the name of a TFDS set; (images, labels) as arrays; or a
        `tf.data.Dataset` of (image, label), batched or not. Pixels are 0..255 or 0..1, labels class
        numbers or names.
      test: images that judge the result, as arrays or a dataset; without it some of each class are
        held out.
      validation: images that judge the search beside a `test`, as that; nothing is trained on them.
        Without a `test` they are the test, and some training images judge the search.
      model_dir: folder of the run.
      measure: measures a latency table of this machine for `max_latency_ms`, which takes minutes; it
        is kept for the next time.
      constraints: further bounds, `neas.Constraint(function, max="500kB")` or as the setting
        `search.constraints` has them: `"peak_activation_bytes<=500kB"`.
      params_override: further settings, as `neas train` takes them.
      **settings: bounds (`max_macs="60M"`, `max_params`, `max_latency_ms` with `latency_table`),
        `time_limit="2h"`, `num_paths`, `seed`, any other setting of `search`, `data` or `space` by its name, and whole
        sections as mappings: `retrain={"epochs": 60}`.

    Returns:
      The result: `.model`, `.accuracy`, `.cost`, `.architecture`, `.history`, `.report`, `.export()`.

    Raises:
      NeasError: for a setting, data or a folder that cannot be; in one sentence, before the work.
    """
    began = time.monotonic()
    if constraints:
        settings["constraints"] = settings_of(constraints)
    given = given_settings(settings, params_override, measure)
    text = os.fspath(model_dir)
    check_local_path("model_dir", text)
    folder = Path(resolve_user_path(text)).absolute()
    with console.without_repeats():
        config, plan = prepare(data, test, validation, folder, given)
        from neas_tf.run.pipeline import run_pipeline

        with told(f"model_dir {str(folder)!r}"):
            folder.mkdir(parents=True, exist_ok=True)
            write_json_atomic(
                folder / "plan.json",
                {
                    "format": FORMAT,
                    "reasons": [list(pair) for pair in plan.reasons],
                    "warnings": plan.warnings,
                    "settings": plan.settings,
                    "given": given,
                },
            )
        run_pipeline(config, str(folder), began=began)
    return Result(folder)


def prepare(
    data: Any, test: Any, validation: Any, folder: Path, given: Mapping[str, Any]
) -> tuple[NeasConfig, plans.Plan]:
    """The settings of a run, and the plan that they come from; says what was decided.

    Raises:
      NeasError: for data or settings that cannot be, before anything but a store is written.
    """
    from neas_tf.run.context import check_folder

    check_folder(str(folder))
    config = load_config(RECIPE)
    source = data_settings(data, test, validation, folder, given.get("data") or {})
    own = given.get("data") or {}
    apply_override(config.data, _without(source, own))
    put_settings(config, given)
    if "input_size" not in own and "input_size" not in source:
        config.data.input_size = []
    facts = facts_of(config.data)
    known = {**given, "data": {**_without(source, own), **own}}
    plan = plans.make_plan(facts, known)
    put_settings(config, {"data": _without(source, own)})
    put_settings(config, plan.settings)
    put_settings(config, given)
    bounds = given.get("search") or {}
    if bounds.get("max_latency_ms"):
        _fit_to_latency(config, plan, facts, known)
    if "max_macs" not in plan.settings.get("search", {}) and "max_macs" not in (
        given.get("search") or {}
    ):
        config.search.max_macs = 0  # another bound is given
    counts = f"{facts.train:,} training images of {facts.classes} classes"
    console.heading(f"Plan for {facts.name}", counts, *plan.lines())
    for warning in plan.warnings:
        console.say(f"Warning: {warning}")
    return config, plan


def _fit_to_latency(
    config: NeasConfig, plan: plans.Plan, facts: plans.Facts, given: Mapping[str, Any]
) -> None:
    """Without a table: a space that is measured here, and its table."""
    search = given["search"]
    if search.get("latency_table"):
        if config.space.scale == "auto" and not config.search.max_macs:
            raise NeasError(
                "latency_table: received one without a space, expected the settings of the space "
                "that it was measured for (space={…} or params_override), or measure=True instead."
            )
        return
    if config.space.scale != "auto":
        from neas_tf.latency.tables import latency_table_for

        shape = {
            "input_size": list(config.data.input_size),
            "input_channels": facts.channels,
            "num_classes": facts.classes,
        }
        space = search_space(config.space.replace(**shape))
        table = latency_table_for(space, config.num_paths)
    else:
        size = (config.data.input_size[0], config.data.input_size[1])
        space, table = fit_latency(facts, size, search["max_latency_ms"], given)
        settings = {**space.to_dict(), "activation": space.activation, "scale": "fitted"}
        put_settings(config, {"space": settings})
        plan.reasons.append(("space", f"{space.num_layers} layers, measured: {table}"))
    config.search.latency_table = str(table)


def given_settings(
    settings: Mapping[str, Any],
    params_override: str | Mapping[str, Any] = "",
    measure: bool = False,
) -> dict[str, Any]:
    """Keywords and overrides of a call as nested settings.

    Raises:
      NeasError: for an unknown name (with the nearest known one), or one that several sections have.
    """
    result = parse_override(params_override)
    config = NeasConfig()
    whole = {field.name for field in dataclasses.fields(config)}
    homes: dict[str, list[str]] = {}
    for section in _SHORT:
        for field in dataclasses.fields(getattr(config, section)):
            homes.setdefault(field.name, []).append(section)
    for name in ("input_size", "input_channels", "num_classes"):  # the space takes the data's
        homes[name] = ["data"]
    stages = {
        f.name for n in ("supernet", "retrain") for f in dataclasses.fields(getattr(config, n))
    }
    for name, value in _plain(settings).items():
        if name in whole:
            part = {name: value}
        elif name in stages or len(homes.get(name, ())) > 1:
            where = [*homes.get(name, ()), *(["supernet", "retrain"] if name in stages else [])]
            raise NeasError(
                f"{name}: received {value!r}, expected the section beside it, such as "
                f"{where[-1]}={{{name!r}: …}}: {', '.join(where)} have this setting."
            )
        elif name in homes:
            part = {homes[name][0]: {name: value}}
        else:
            unknown_name("neas.search", name, [*whole, *homes])
        for key, inner in part.items():
            before = result.get(key)
            if isinstance(before, Mapping) and isinstance(inner, Mapping):
                result[key] = {**before, **inner}
            else:
                result[key] = inner
    result = with_quantities(result)
    size = (result.get("data") or {}).get("input_size")
    if isinstance(size, int):
        result["data"] = {**result["data"], "input_size": [size, size]}
    put_settings(NeasConfig(), result)  # refuses unknown names inside, and values of a wrong kind
    bounds = result.get("search") or {}
    if bounds.get("max_latency_ms") and not bounds.get("latency_table") and not measure:
        fail(
            "max_latency_ms",
            bounds["max_latency_ms"],
            "measure=True (--measure) beside it, which measures this machine, or a latency_table "
            "of the target that `neas latency` measured",
        )
    return result


def _plain(value: Any) -> Any:
    """What callers hand in as what settings are made of: NumPy's numbers, tuples, paths."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return value.item()
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _without(source: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the data that the user has not set."""
    return {key: value for key, value in source.items() if key not in own or key == "source"}
