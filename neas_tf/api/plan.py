"""What a search is made of where the user leaves it open: sizes, budget, lengths, batches.

Everything follows from the pictures and the budget by rules that are printed with their reason and
kept in `plan.json`; whatever the user sets stays as it is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from neas_tf.common.errors import fail
from neas_tf.cost.space_fitting import fit_space

SIDES = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224)
_MACS_PER_PIXEL = 2500  # of MobileNets at 224²: 1,100 (V3 small) to 6,000 (V2)
# The side of a square image up to which a budget is taken where none is given.
_BUDGETS = {16: 3_000_000, 32: 20_000_000, 64: 30_000_000, 96: 60_000_000, 128: 100_000_000}
_LARGEST_BUDGET = 300_000_000  # NEAS-S
_LARGEST_OPEN_SIDE = 96  # where neither size nor budget is given: a CPU still trains it
_DROPPED = 0.12  # of all combinations, with each of four shrinks; the paper's six drop 55 %
_FEW_JUDGES = 300  # images; below, accuracies differ by chance more than by architecture


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the data are.

    Attributes:
      name: of the data.
      train, test: how many images.
      classes: how many.
      counts: training images of each class; empty where only reading all of them would tell.
      side: shorter side of the images in pixels, their median.
      same_size: (height, width) where all images have it, else None.
      channels: 1 or 3.
      validation: images that judge the search; 0 leaves that to some of the training images.
    """

    name: str
    train: int
    test: int
    classes: int
    counts: Sequence[int]
    side: int
    same_size: tuple[int, int] | None
    channels: int
    validation: int = 0


@dataclasses.dataclass
class Plan:
    """Settings, nested, and why.

    Attributes:
      settings: over the recipe `neas_own_data`.
      reasons: (what, why), one line each, in the order of the run.
      warnings: what the user should know before the time is spent.
    """

    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    reasons: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    def put(self, section: str, **values: Any) -> None:
        """Adds settings of a section."""
        self.settings.setdefault(section, {}).update(values)

    def lines(self) -> list[str]:
        """The plan for people."""
        width = max(len(what) for what, _ in self.reasons)
        return [f"{what:{width}}  {why}" for what, why in self.reasons]


def make_plan(facts: Facts, given: Mapping[str, Any]) -> Plan:
    """Plans a search.

    Args:
      facts: of the data.
      given: the user's own settings, nested; they decide what the others are fitted to.

    Returns:
      Settings for what the user left open. The same input gives the same plan.
    """
    plan = Plan()
    search, data = given.get("search") or {}, given.get("data") or {}
    size, macs = _size_and_budget(plan, facts, data, search)
    judges, held_out = _parts(plan, facts, data)
    _space(plan, facts, given, macs, size)
    _lengths(plan, facts, given, judges, held_out, size)
    return plan


def _size_and_budget(
    plan: Plan, facts: Facts, data: Mapping[str, Any], search: Mapping[str, Any]
) -> tuple[list[int], int]:
    """The images' size and the bound on MACs, 0 where another bound is given."""
    bound = int(search.get("max_macs") or 0)
    other = bool(search.get("max_params") or search.get("max_latency_ms"))
    size = [int(side) for side in data.get("input_size") or ()]
    if not size:
        most = facts.side
        why = f"the images' shorter side is {facts.side} in the median"
        if bound:
            paying = math.isqrt(bound // _MACS_PER_PIXEL)
            if max(paying, SIDES[2]) < most:
                most = max(paying, SIDES[2])
                why = f"{bound:,} MACs pay for no larger image than about {most}×{most}"
        elif most > _LARGEST_OPEN_SIDE:
            most, why = _LARGEST_OPEN_SIDE, f"{why}; larger ones take long (data.input_size)"
        if facts.same_size and min(facts.same_size) <= most:
            size, why = list(facts.same_size), "all images have it"
        else:
            size = [max([side for side in SIDES if side <= most] or [max(1, most)])] * 2
        plan.put("data", input_size=size)
        plan.reasons.append(("image size", f"{size[0]}×{size[1]}: {why}"))
    if not bound and not other:
        side = math.isqrt(size[0] * size[1])
        bound = next((macs for most, macs in _BUDGETS.items() if side <= most), _LARGEST_BUDGET)
        plan.put("search", max_macs=bound)
        plan.reasons.append(("budget", f"{bound:,} MACs, usual for images of this size"))
    elif bound:
        plan.reasons.append(("budget", f"{bound:,} MACs, as given"))
    return size, bound


def _parts(plan: Plan, facts: Facts, data: Mapping[str, Any]) -> tuple[int, int]:
    """How many images judge the search, and how many training images are held out for that."""
    share = data.get("search_fraction")
    if facts.validation:
        if share:
            received = f"{share:g} beside {facts.validation:,} validation pictures"
            fail("data.search_fraction", received, "none: those judge the search")
        judges, held_out = facts.validation, 0
        plan.put("data", search_fraction=0.0)
        said = f"judged on {judges:,} validation pictures, which nothing is trained on"
        plan.reasons.append(("search", said))
    else:
        if share is None:
            share = round(min(0.25, max(0.1, 2000 / max(facts.train, 1))), 3)
            plan.put("data", search_fraction=share)
        judges = held_out = max(1, round(float(share) * facts.train))
        said = f"{held_out:,} of {facts.train:,} training images judge the search"
        plan.reasons.append(("held out", said))
    error = 50 / math.sqrt(judges)  # points, at an accuracy of 50 %
    if judges < _FEW_JUDGES:
        plan.warnings.append(
            f"{said}: an accuracy on so few has a standard error of up to {error:.0f} points, so "
            "that candidates can hardly be told apart; more pictures help most."
        )
    if facts.test:
        error = 50 / math.sqrt(facts.test)
        note = f", a standard error of up to {error:.1f} points" * (facts.test < _FEW_JUDGES)
        plan.reasons.append(("test", f"{facts.test:,} images that nothing is chosen by{note}"))
    if facts.channels == 1 and data.get("flip") is None:
        plan.put("data", flip=False)
        plan.reasons.append(("flip", "none: grey images are often characters (data.flip)"))
    few = min((count for count in facts.counts if count), default=0)
    if facts.counts and max(facts.counts) > 5 * max(few, 1) and not data.get("class_weights"):
        plan.warnings.append(
            f"classes have {few:,} to {max(facts.counts):,} training images; "
            "data.class_weights=balanced lets them count the same."
        )
    return judges, held_out


def _space(
    plan: Plan, facts: Facts, given: Mapping[str, Any], macs: int, size: Sequence[int]
) -> None:
    """The space that fits the budget, and how much of it each shrink drops."""
    space = given.get("space") or {}
    if set(space) - {"scale", "activation"}:
        plan.put("space", scale=space.get("scale", ""))
        plan.reasons.append(("space", "as given"))
        return
    plan.put("space", scale="auto")
    params = int((given.get("search") or {}).get("max_params") or 0)
    bounds = {metric: value for metric, value in (("macs", macs), ("params", params)) if value}
    if not bounds:
        return
    paths = int(given.get("num_paths") or 2)
    channels = int((given.get("data") or {}).get("input_channels") or facts.channels)
    fit = fit_space(
        (size[0], size[1]),
        channels,
        facts.classes,
        paths,
        bounds,
        bool(given.get("heterogeneous", True)),
    )
    plan.reasons.append(("space", fit.text()))
    combinations = (fit.space.num_layers - fit.space.min_split) * math.comb(
        len(fit.space.operators), paths
    )
    plan.put("shrink", remove=max(1, round(_DROPPED * combinations)))


def _lengths(
    plan: Plan,
    facts: Facts,
    given: Mapping[str, Any],
    judges: int,
    held_out: int,
    size: Sequence[int],
) -> None:
    """Passes over the data, batches and rates; smaller data are seen more often."""
    trained = max(1, facts.train - held_out)
    for name, most, images, seen in (
        ("supernet", 80, trained, 600_000),
        ("retrain", 120, facts.train, 1_200_000),
    ):
        own = given.get(name) or {}
        batch = int(own.get("batch_size") or _power_of_two(min(128, max(8, images // 2))))
        batch = min(batch, images) if "batch_size" not in own else batch
        epochs = float(own.get("epochs") or min(most, max(most // 8, round(seen / max(images, 1)))))
        warmup = min(5.0, round(epochs / 20, 2))
        rate = round(0.2 * (batch / 128) ** 0.67, 4)
        schedule = {"supernet": "polynomial", "retrain": "cosine"}[name]
        values: dict[str, Any] = {"batch_size": batch, "epochs": epochs, "warmup_epochs": warmup}
        if "trainer" not in own:
            optimizer: dict[str, Any] = {
                "learning_rate": {schedule: {"initial_learning_rate": rate}}
            }
            if name == "retrain":
                steps = epochs * images / batch
                decay = round(min(0.999, max(0.9, 1 - 20 / max(steps, 21))), 4)
                optimizer["ema"] = {"average_decay": decay}
            values["trainer"] = {"optimizer_config": optimizer}
        plan.put(name, **values)
        what = "supernet" if name == "supernet" else "final training"
        limit = ", as far as the time limit lets it" * bool(given.get("time_limit"))
        said = f"{epochs:g} passes over {images:,} images, {batch} a step{limit}"
        plan.reasons.append((what, said))
    supernet = plan.settings["supernet"]
    plan.put(
        "shrink",
        every_epochs=round(supernet["epochs"] / 4, 2),
        images=min(256, _power_of_two(trained)),
        batch_size=min(128, _power_of_two(trained)),
    )
    calibration = min(512, trained)
    plan.put(
        "search",
        calibration_images=calibration,
        calibration_batch=min(128, _power_of_two(calibration)),
        validation_images=2000 if judges > 2000 else 0,
    )
    if facts.train >= 5000:
        plan.put("search", population=24, parents=8, generations=12)
    if given.get("data", {}).get("crop_padding") is None:
        plan.put("data", crop_padding=max(1, min(size) // 8))
    plan.put(
        "export", calibration_images=min(256, facts.train), parity_examples=min(64, facts.train)
    )
    plan.put("export", fine_tune_batch=min(128, _power_of_two(facts.train)))


def _power_of_two(number: int) -> int:
    """The largest power of two that is not above a number of 1 or more."""
    return 1 << (max(1, number).bit_length() - 1)
