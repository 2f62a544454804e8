"""The stages of a run that ends by a given time: lengths of trainings, shrinks left out, the search's end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from neas_tf import data
from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.config.resolve import resolve_steps, retrain_part
from neas_tf.config.settings import NeasConfig
from neas_tf.cost.cost_table import CostTable
from neas_tf.run.cluster import Cluster, exchange
from neas_tf.run.parts.measuring import training_part
from neas_tf.run.parts.time_limit import SHARES, WARM_SHARE, TimePlan, told
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.training.initial_weights import SCRATCH, SUPERNET
from neas_tf.training.paced import Pace
from neas_tf.training.time_plan import Course, Pacer, most_steps

# By how much a run may miss its limit before it is not begun.
_OVER = 1.1
# Steps without which a training is none.
_FEWEST_STEPS = 10
# Of the time of a stage that is left, what shrinks may take.
_SHRINKS = 0.35
# Seconds of a forward pass against those of a step, image by image.
_FORWARD = 0.4
# An export, and the test before its first image: seconds, and besides so much of building a graph to train with.
_EXPORT, _TEST = (2.0, 1.3), (3.0, 1.0)
_TRACED = 8.0  # seconds, before any was built
# Of building the supernet's graph, what the search's functions and the retraining's graph take.
_SEARCH_GRAPHS, _RETRAIN_GRAPH = 0.5, 0.8
_FINE_TUNED = ("tflite_int8_qat", "tflite_pruned")
# At most so much of the time that is left is kept for test, export and report.
_MOST_RESERVED = 0.8


def reserve(config: NeasConfig, info: data.DatasetInfo, plan: TimePlan) -> float:
    """Seconds kept for what comes after the retraining."""
    return min(_ending(config, info, plan), _MOST_RESERVED * max(0.0, plan.left()))


def _ending(config: NeasConfig, info: data.DatasetInfo, plan: TimePlan) -> float:
    """Seconds of test, export and report, as far as can be told from what was measured."""
    traced, image = _TRACED, 0.0
    for name in ("supernet", "retrain"):
        entry = plan.stages.get(name, {})
        if "traced" in entry:
            traced = entry["traced"] * (_RETRAIN_GRAPH if name == "supernet" else 1.0)
        image = entry.get("step_seconds", 0.0) / getattr(config, name).batch_size or image
    seconds = _TEST[0] + _TEST[1] * traced + _FORWARD * image * info.sizes["test"]
    for name in config.export.formats:
        seconds += _EXPORT[0] + _EXPORT[1] * traced
        if name in _FINE_TUNED:  # fake quantization makes a step about half as long again
            images = config.export.fine_tune_epochs * info.sizes["train"]
            seconds += traced + 1.5 * image * images
    return seconds


def _graphs(plan: TimePlan, name: str) -> tuple[float, float]:
    """Seconds that graphs take in a stage, and in those that follow, as far as was measured."""
    traced = plan.stages.get("supernet", {}).get("traced", 0.0)
    searching, training = _SEARCH_GRAPHS * traced, _RETRAIN_GRAPH * traced
    if name == "supernet":
        return traced, searching + training
    return (searching, training) if name == "search" else (0.0, 0.0)


class StagePace(Pace):
    """The pace of one training stage.

    Args:
      name: supernet or retrain.
      config, info: of the run.
      plan: of its time.
      recipe: steps of the recipe.
      per_epoch: steps of an epoch.
      cluster: of the run.
    """

    def __init__(
        self,
        name: str,
        config: NeasConfig,
        info: data.DatasetInfo,
        plan: TimePlan,
        recipe: int,
        per_epoch: float,
        cluster: Cluster,
    ):
        self.name, self._config, self._info, self.plan = name, config, info, plan
        self._per_epoch, self._chief = per_epoch, cluster.is_chief
        self._reserve = 0.0
        begin = plan.stage(name)["begin"]
        course, most = plan.course(name, recipe), most_steps(recipe, per_epoch)
        pacer = Pacer(course, begin, self._deadline(), plan.used, most, self.after)
        super().__init__(pacer, self._keep, _agreeing(cluster), self._tell)
        plan.save()

    def _deadline(self) -> float:
        self._reserve = reserve(self._config, self._info, self.plan)
        return self.plan.deadline(self.name, self._reserve, *_graphs(self.plan, self.name))

    def after(self, step: int) -> float:
        """Seconds besides the steps that must be over by the deadline."""
        return max(0.0, reserve(self._config, self._info, self.plan) - self._reserve)

    def note(self) -> str:
        """The whole run, for the bar."""
        return self.plan.note()

    def _keep(self, course: Course) -> None:
        seconds, entry = self.pacer.step_seconds, self.plan.stage(self.name)
        if "traced" not in entry:
            entry["traced"] = round(self.pacer.traced, 2)
            self.pacer.deadline = self._deadline()
        if seconds is not None:
            entry["step_seconds"] = round(seconds, 6)
        if len(course.segments) == 1 and "segments" not in entry:
            self._check_enough(course)
        self.plan.keep_course(self.name, course)

    def _check_enough(self, course: Course) -> None:
        """Raises where there is no time to train anything; what a supernet has found is kept."""
        (first,) = course.segments
        found = self.name == "retrain" and "search" in self.plan.stages
        if found or not self._chief:  # the chief's failure ends the others
            return
        seconds = self.pacer.step_seconds or 0.0
        own, later = _graphs(self.plan, self.name)
        ending = _ending(self._config, self._info, self.plan)
        fixed = self.pacer.begin + ending + (own or self.pacer.traced) + later
        least = fixed + (_FEWEST_STEPS + first.step) * seconds / SHARES[self.name]
        few = first.total - first.step < min(_FEWEST_STEPS, course.recipe - 1)
        if few or least > _OVER * self.plan.limit:
            raise NeasError(
                f"time_limit: received {told(self.plan.limit)}, but a step of the {self.name} takes "
                f"{seconds:.2g} s here, and what is fixed (libraries, graphs, test, export) about "
                f"{told(fixed)}; expected at least {math.ceil(1.2 * least / 10) * 10}s."
            )

    def _tell(self, course: Course, seconds: float) -> None:
        epochs = course.total / self._per_epoch
        share = course.total / course.recipe
        console.say(
            f"   Plan: {course.total:,} steps ({epochs:.3g} epochs, {share:.0%} of the recipe) of "
            f"{seconds:.2g} s, to end {told(self.pacer.deadline)} after the run's begin."
        )


class SupernetPace(StagePace):
    """The supernet's pace, which also decides which shrinks there is time for.

    Its arguments are those of `StagePace`, and `boundaries`: recipe steps after which the space
    shrinks.
    """

    def __init__(
        self,
        config: NeasConfig,
        info: data.DatasetInfo,
        plan: TimePlan,
        recipe: int,
        per_epoch: float,
        cluster: Cluster,
        boundaries: Sequence[int],
    ):
        self.boundaries = list(boundaries)
        super().__init__("supernet", config, info, plan, recipe, per_epoch, cluster)

    def step_of(self, boundary: int) -> int:
        """The step at which a boundary of the recipe lies."""
        return self.course.steps_until(boundary)

    def after(self, step: int) -> float:
        """Seconds of the shrinks to come."""
        pending = sum(self.course.steps_until(b) > step for b in self.boundaries)
        return self._affordable(pending) * self._seconds()

    def _affordable(self, pending: int) -> int:
        seconds = self._seconds()
        if not seconds or not pending:
            return pending
        spare = _SHRINKS * max(0.0, self.pacer.deadline - self.plan.used())
        return min(pending, int(spare / seconds))

    def _seconds(self) -> float:
        """Of one shrink: as the last one took, or by the cost of its forward passes."""
        entry, shrink = self.plan.stage("supernet"), self._config.shrink
        if "shrink_seconds" in entry:
            return float(entry["shrink_seconds"])
        stage = self._config.supernet
        image = entry.get("step_seconds", 0.0) / (stage.batch_size * stage.draws_per_step)
        batches = max(1, shrink.images // shrink.batch_size)
        work = _FORWARD * image * batches * min(shrink.batch_size, shrink.images)
        return shrink.num_samples * work + 0.3 * entry.get("traced", 0.0)

    def skips(self, index: int) -> bool:
        """Whether the shrink number `index` (from 1) is left out for want of time; the chief asks."""
        entry = self.plan.stage("supernet")
        skipped = entry.setdefault("skipped_shrinks", [])
        pending = len(self.boundaries) - index + 1
        if index not in skipped and self._affordable(pending) < pending:
            skipped.append(index)
            self.plan.save()
            console.say(
                f"   Shrink {index} is left out: it would take about {told(self._seconds())}, and "
                f"{told(self.pacer.deadline - self.plan.used())} are left for the stage."
            )
        return index in skipped

    def took(self, seconds: float) -> None:
        """Tells how long a shrink took."""
        self.pacer.pause(seconds)
        self.plan.put("supernet", shrink_seconds=round(seconds, 2))


def search_end(
    config: NeasConfig, info: data.DatasetInfo, plan: TimePlan, cluster: Cluster
) -> Callable[[int, int], str]:
    """What says after each generation, and between parts of the first, whether the search must end.

    Some ensembles are always scored; more follow where they can be expected to end in time. What a part
    or a generation took is kept in the plan: a resumed search has seen only a piece of the first one.
    """
    kept, graphs = reserve(config, info, plan), _graphs(plan, "search")
    deadline = plan.deadline("search", kept, *graphs)
    agree, begin, entry = _agreeing(cluster), plan.used(), plan.stage("search")
    # The first part builds the graphs; the first generation may have begun in an earlier session.
    begins = {"generation": entry["begin"], "part": begin + graphs[0]}
    pieces = {name for name in begins if f"{name}_seconds" in entry}
    if "generation" in pieces:
        begins["generation"] = begin
    plan.save()

    def enough(generation: int, scored: int) -> str:
        """`scored` ensembles of the first generation, or 0 where all of a generation are."""
        now, name = plan.used(), "part" if scored else "generation"
        took = now - begins[name]
        if name in pieces:
            took = max(took, entry[f"{name}_seconds"])
            pieces.remove(name)
        begins["part"] = now
        if not scored:
            begins["generation"] = now
        entry[f"{name}_seconds"] = round(took, 2)
        plan.save()
        (over,) = agree([int(now + 0.9 * took > deadline)])
        if not over:
            return ""
        settings = config.search
        done = f"{generation + 1} of {settings.generations} generations"
        if scored:
            done = f"{scored} of the {settings.population} ensembles of the first generation"
        return f"its time is over after {done}, {told(now)} after the run's begin"

    return enough


def choose_start(
    config: NeasConfig,
    info: data.DatasetInfo,
    plan: TimePlan,
    table: CostTable,
    architecture: Architecture,
    shrunk: ShrunkSpace | None,
    cluster: Cluster,
) -> str:
    """What `retrain.init: auto` means under a time limit: supernet where its training was much longer.

    The length is estimated from the supernet's steps and the cost of both; the choice is recorded.

    Args:
      config, info, plan, table: of the run.
      architecture: to be retrained.
      shrunk: the space of the run's trained supernet; None where it has none.
      cluster: of the run; the chief chooses.
    """
    entry = plan.stage("retrain")
    if "init" not in entry:
        images = info.sizes[retrain_part(config.retrain)]
        per_epoch = images / config.retrain.batch_size
        recipe = resolve_steps(config.retrain, images, "retrain").trainer.train_steps
        choice, epochs = SCRATCH, recipe / per_epoch
        measured = plan.stages.get("supernet", {}).get("step_seconds")
        if shrunk is not None and measured:
            draws = sampling.draws_for_steps(shrunk, config.seed, 0, 64)
            costs = [table.cost(Architecture.from_array(d, table.space)).macs for d in draws]
            image = measured / config.supernet.batch_size / (sum(costs) / len(costs))
            step = image * config.retrain.batch_size * table.cost(architecture).macs
            graph = _RETRAIN_GRAPH * plan.stages["supernet"]["traced"]
            seconds = max(0.0, plan.left() - reserve(config, info, plan) - graph)
            steps = min(seconds / step, most_steps(recipe, per_epoch))
            epochs = steps / per_epoch
            learnt = _supernet_epochs(config, info, plan)
            choice = SUPERNET if epochs < WARM_SHARE * learnt else SCRATCH
        (warm,) = _agreeing(cluster)([int(choice == SUPERNET)])
        choice = SUPERNET if warm else SCRATCH
        plan.put("retrain", init=choice, estimated_epochs=round(epochs, 2))
    return str(entry["init"])


def _supernet_epochs(config: NeasConfig, info: data.DatasetInfo, plan: TimePlan) -> float:
    """For how many the supernet was trained."""
    images = info.sizes[training_part(config)]
    recipe = resolve_steps(config.supernet, images, "supernet").trainer.train_steps
    return plan.course("supernet", recipe).total * config.supernet.batch_size / images


def _agreeing(cluster: Cluster) -> Callable[[Sequence[int]], Sequence[int]]:
    def agree(values: Sequence[int]) -> Sequence[int]:
        if cluster.worker[0] == 1:
            return values
        return [int(value) for value in exchange(cluster.strategy, values)[0]]

    return agree
