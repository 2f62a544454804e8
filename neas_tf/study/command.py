"""What `python -m neas_tf.study` does: settings in, units run, reports out."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.folder_lock import lock_folder
from neas_tf.config.parse import put_settings, read_overrides
from neas_tf.config.settings import NeasConfig
from neas_tf.latency.timing import describe_machine
from neas_tf.run.context import Run
from neas_tf.run.identity import essential_settings
from neas_tf.run.pipeline import make_strategy
from neas_tf.run.ray_engine import Ray
from neas_tf.study import reporting, schedule
from neas_tf.study.runner import Runner
from neas_tf.study.settings import StudySettings
from neas_tf.study.store import Store
from neas_tf.study.tables.catalogue import STUDIES, all_units
from neas_tf.study.tables.plan import Plan
from neas_tf.study.units import Unit, in_order


def load_settings(
    config_files: Sequence[str], params_override: str | Mapping[str, Any]
) -> tuple[NeasConfig, StudySettings]:
    """The base settings and the sizes, from files with a `study:` section and overrides.

    Raises:
      NeasError: for an unknown experiment or key, or a value of a wrong kind.
    """
    from neas_tf.config import experiments

    overrides = read_overrides(config_files, params_override)
    sections: dict[str, Any] = {}
    for override in overrides:
        section = override.pop("study", {})
        if not isinstance(section, Mapping):
            section = {"": section}  # refused below, by name
        inner = [part.get("truth", {}) for part in (sections, section)]
        sections |= section
        if all(inner) and all(isinstance(part, Mapping) for part in inner):
            sections["truth"] = {**inner[0], **inner[1]}  # settings of its own, one by one
    settings = StudySettings.from_dict(sections)
    config = experiments.find(settings.experiment, "study.experiment")
    for override in overrides:
        put_settings(config, override)
    return config, settings


def run_studies(
    names: Sequence[str],
    config: NeasConfig,
    settings: StudySettings,
    model_dir: str,
    *,
    ray: Ray | None = None,
    time_limit: float = 0.0,
    list_only: bool = False,
    report_only: bool = False,
) -> schedule.Progress:
    """Runs studies as far as they get, writes their reports, and says how far the units are.

    Args:
      ray: the cluster that does the units; None does one after the other in this process.
      time_limit: minutes after which no unit begins, 0 for none.
      list_only: whether only the units are listed; nothing is written then.
      report_only: whether only the reports are written from what is done.

    Raises:
      NeasError: for settings, data or a folder that cannot be used; then nothing is written.
    """
    limit = schedule.check_time_limit(time_limit)
    base = essential_settings(config)
    store = Store(model_dir, base, essential_settings(NeasConfig()))
    runner = Runner(config, store, make_strategy(config))
    run = runner.base_run()
    plan = Plan(settings, base, run.space)
    units = all_units(names, plan)
    now = schedule.progress(units, store)
    if list_only:
        _list(now)
        return now
    try:
        store.begin()
        if not report_only:
            with lock_folder(store.folder):
                _announce(names, now, str(store.folder))
                now = _work(units, runner, store, now, limit, ray)
    finally:  # what is done has its report, though a unit may have failed
        if (store.folder / "study.json").exists():
            for name in names:
                folder = _write_report(name, plan, store, run)
                console.say(f"{STUDIES[name].TITLE}: {folder / 'README.md'}")
    console.say(schedule.describe(now))
    return now


def _work(
    units: Sequence[Unit],
    runner: Runner,
    store: Store,
    now: schedule.Progress,
    limit: float,
    ray: Ray | None,
) -> schedule.Progress:
    """The units, here or on a cluster."""
    with contextlib.ExitStack() as stack:
        engine: schedule.Engine = schedule.Local(runner)
        if ray:
            shared = (str(store.folder), runner.settings, runner.data_digest())
            engine = stack.enter_context(ray.connect("neas_tf.study.runner:run_on_node", shared))
        total = len(now.done) + len(now.left)
        bar = stack.enter_context(console.bar("study", total, "units", len(now.done)))
        now = schedule.work(
            units,
            store,
            engine,
            seconds_limit=limit,
            bar=bar,
            on_begin=lambda unit: _tell(unit, store),
            lost=store.without_weights,
        )
    if now.left and limit:
        console.say("The time limit is reached; the same command continues from here.")
    return now


def _tell(unit: Unit, store: Store) -> None:
    again = "" if store.get(unit) is None else ": done, but its weights are not in this folder"
    console.heading(unit.title, unit.key + again)


def _list(now: schedule.Progress) -> None:
    for unit in (*now.done, *now.left):
        console.show(f"{'done' if unit in now.done else 'left'}  {unit.title}")
    console.show(schedule.describe(now))


def _announce(names: Sequence[str], now: schedule.Progress, folder: str) -> None:
    console.heading(
        f"Studies: {', '.join(names)}",
        f"folder {folder}",
        f"{schedule.describe(now)}; {len(now.left)} left",
    )


def _write_report(name: str, plan: Plan, store: Store, run: Run) -> Path:
    study = STUDIES[name]
    own: list[Unit] = in_order([unit for part in study.rounds(plan) for unit in part])
    done = [unit for unit in own if store.find(unit) is not None]
    missing = [unit for unit in own if unit not in set(done)]
    header = reporting.Header(
        name,
        study.TITLE,
        study.PAPER,
        _facts(plan, run),
        [unit.title for unit in done],
        [unit.title for unit in missing],
        sum(store.seconds(unit) for unit in done) / 3600,
    )
    folder = store.folder / "studies" / name
    try:
        reporting.write(folder, header, study.report(plan, store.get))
    except OSError as error:
        raise NeasError(
            f"model_dir: {str(folder)!r} cannot be written ({error.strerror or error})."
        ) from None
    return folder


def _facts(plan: Plan, run: Run) -> list[str]:
    base, space, sizes = plan.base, run.space, run.info.sizes
    size = "×".join(map(str, space.input_size))
    alive = base["shrink"]
    budget = console.short_count(plan.budget) if plan.budget else "no bound on"
    return [
        f"data {run.info.name}, {size} pixels: {sizes['train']:,} training images, "
        f"{run.info.judges()}{sizes['test']:,} test images",
        f"space {space.name!r}: {space.num_layers} layers, {len(space.operators)} operators, split "
        f"after layer {space.min_split} to {space.max_split}, K = {base['num_paths']}",
        f"supernet {base['supernet']['epochs']:g} epochs, a shrink every "
        f"{alive['every_epochs']:g} of {alive['remove']} combinations; from scratch "
        f"{base['retrain']['epochs']:g} epochs; search {base['search']['generations']} × "
        f"{base['search']['population']} ensembles under {budget} MACs",
        f"seeds {', '.join(map(str, plan.seeds))}; report written on {describe_machine()}",
    ]
