"""Model Garden's trainer and Orbit's controller for a stage, with progress and exact resume."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orbit
import tensorflow as tf
import tf_keras
from absl import logging
from official.core import base_task, train_lib
from official.core import config_definitions as cfg

from neas_tf.common import console
from neas_tf.common.errors import NeasError
from neas_tf.common.files import write_text_atomic
from neas_tf.common.paths import literal_path
from neas_tf.training.checkpoints import latest_step, reason_of
from neas_tf.training.divergence import Watch
from neas_tf.training.waiting import WaitingTrainer

# (first step, input_context) → batches from that step on.
MakeDataset = Callable[[int, tf.distribute.InputContext | None], tf.data.Dataset]


class TrainingLoop:
    """Trains a task up to given steps; starts where its folder's newest checkpoint stands.

    Args:
      experiment: task key, trainer and runtime, as Model Garden wants them.
      task: what a step does.
      model, optimizer: made in the strategy's scope, with slots.
      make_dataset: batches as a function of the first step, so that a resumed run sees what an
        uninterrupted one would have.
      folder: of checkpoints, TensorBoard events and metrics.jsonl.
      steps_per_epoch: for the log.
      title: of the progress bar.
      watch: what counts as diverged; without one, what is not finite.
      note: what the bar says besides, such as how far the whole run is.
      paced: whether the length is planned while it trains; the bar has none before `set_total`, for
        the recipe's would look like another training's.
    """

    def __init__(
        self,
        experiment: cfg.ExperimentConfig,
        task: base_task.Task,
        model: tf_keras.Model,
        optimizer: Any,
        make_dataset: MakeDataset,
        folder: Path,
        steps_per_epoch: float,
        title: str,
        watch: Watch | None = None,
        note: Callable[[], str] = str,
        paced: bool = False,
    ):
        self._watch, self._note = watch or Watch(), note
        strategy = tf.distribute.get_strategy()
        # Orbit prints several lines a loop, which would tear the progress bar.
        orbit.controller._log = logging.debug
        self.total = experiment.trainer.train_steps
        self.first_step = self._seen = latest_step(folder)
        # Of several workers the chief writes the files; the others' checkpoints are temporary.
        chief = bool(strategy.extended.should_checkpoint)
        self.metrics = MetricsLog(folder / "metrics.jsonl", self.first_step) if chief else None

        def dataset(input_context=None):
            return make_dataset(self.first_step, input_context)

        self.trainer = WaitingTrainer(
            experiment,
            task,
            model,
            optimizer,
            train=True,
            evaluate=False,
            train_dataset=orbit.utils.make_distributed_dataset(strategy, dataset),
            max_loss=self._watch.settings.max_loss,
        )
        shown = None if paced else self.total
        self._bar = console.bar(title, shown, "steps", self.first_step, disable=not chief)
        self._steps_per_epoch = steps_per_epoch
        if chief:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            runner = train_lib.OrbitExperimentRunner(
                strategy,
                task,
                "train",
                experiment,
                literal_path(folder),
                trainer=self.trainer,
                save_summary=chief,
                controller_cls=functools.partial(_Controller, folder),
                train_actions=[self._progress],
            )
        except tf.errors.OpError as error:
            self.close()
            raise NeasError(
                f"checkpoint: the newest one in {str(folder)!r} (step {self.first_step}) cannot be "
                f"read ({reason_of(error)})."
            ) from None
        self._controller = runner.controller
        # Else the first loop of a resumed run would be saved, and all further checkpoints lie at
        # other steps than an undisturbed run's, so that a rollback would end at another one. Nor
        # would the workers save at the same steps, which takes all of them.
        runner.checkpoint_manager._last_checkpoint_step = self.first_step or None
        self._controller.saved = self.first_step
        if self.first_step and not chief:
            path = tf.train.latest_checkpoint(literal_path(folder))
            self.trainer.checkpoint.restore(path).assert_existing_objects_matched()
        if self.step != self.first_step:
            raise RuntimeError(f"Restored step {self.step}, expected {self.first_step}.")
        if self.first_step:
            of = "" if paced else f" of {self.total:,}"
            console.say(f"   Continues at step {self.first_step:,}{of}.")

    @property
    def step(self) -> int:
        """Steps done."""
        return int(self.trainer.global_step.numpy())

    @property
    def optimizer(self) -> Any:
        """The optimizer."""
        return self.trainer.optimizer

    def train_to(self, step: int, save: bool = True) -> None:
        """Trains until so many steps are done, and saves.

        Raises:
          Diverged: when the loss or the weights go bad; they are in no checkpoint.
          NeasError: when a checkpoint cannot be written.
        """
        if self.step < step:
            self._controller.train(step, checkpoint_at_completion=save)

    def save(self) -> None:
        """Saves the last step, unless it is saved already."""
        # Not by a look into the folder: all workers take part in saving, or none.
        if self._controller.saved != self.step:
            self._controller._maybe_save_checkpoint(check_interval=False)

    def set_total(self, total: int) -> None:
        """Tells that the training will have another number of steps."""
        self.total = self._bar.total = total

    def close(self) -> None:
        """Ends the progress bar."""
        self._bar.close()

    def _progress(self, output: Any) -> None:
        step = self.step
        values = {name: float(value) for name, value in output.items()}
        loss = values.get("training_loss", 0.0)
        # Before Orbit saves: a checkpoint is always good to continue from.
        self._watch.check_loss(self._seen, step, self.trainer.bad_steps, loss)
        self._watch.check_weights(self.trainer.model, self.trainer.optimizer, step)
        self._seen = step
        accuracy = values.get("ensemble_accuracy", 0.0)
        # For the eyes only: another run of the same settings waits another time.
        waits = self.trainer.waiting_share()
        text = f"loss {loss:.3f}, accuracy {accuracy:.1%}, waits {waits:.1%} for data{self._note()}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(step - self._bar.n)
        values["loss"] = values.pop("training_loss", loss)
        if self.metrics:
            epoch = round(step / self._steps_per_epoch, 4)
            self.metrics.append({"step": step, "epoch": epoch} | values)


class _Controller(orbit.Controller):
    """Orbit's, whose files are written or the run ends with a sentence."""

    def __init__(self, folder: Path, **kwargs: Any):
        self._folder = folder  # under the name that people know
        self.saved = 0  # step of the newest checkpoint
        super().__init__(**kwargs)
        for name in ("summary_writer", "write_summaries", "flush"):
            method = getattr(self.summary_manager, name)
            setattr(self.summary_manager, name, self._writing("TensorBoard events")(method))

    def _maybe_save_checkpoint(self, check_interval: bool = True) -> bool:
        with self._writing("checkpoint"):
            saved = super()._maybe_save_checkpoint(check_interval)
        if saved:
            self.saved = int(self.global_step.numpy())
        return saved

    @contextlib.contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        folder = self._folder
        try:
            yield
        except tf.errors.OpError as error:
            raise NeasError(
                f"{what}: {str(folder)!r} cannot be written ({reason_of(error)}); the "
                f"last whole checkpoint is that of step {latest_step(folder):,}."
            ) from None


class MetricsLog:
    """metrics.jsonl: one line a logging interval; lines after the restored step are dropped."""

    def __init__(self, path: Path, step: int):
        self.path = path
        if path.exists():
            kept = []
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    if json.loads(line)["step"] <= step:
                        kept.append(line + "\n")
                except (ValueError, KeyError, TypeError, RecursionError):
                    logging.warning("Dropped a half-written line of %s.", path)
            write_text_atomic(path, "".join(kept))

    def append(self, values: dict[str, Any]) -> None:
        """Adds a line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(values) + "\n")
