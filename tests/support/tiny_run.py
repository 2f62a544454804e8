"""A whole run small enough for tests: digits, three layers, two paths."""

import os
import pathlib
import subprocess
import sys

from neas_tf.common import paths

TINY = {
    "num_paths": 2,
    "space": {
        "name": "tiny",
        "stem_channels": 8,
        "stages": [[8, 1, 1], [12, 2, 2]],
        "operators": ["k3e1", "k3e2", "k5e1", "skip"],
        "min_split": 1,
        "max_split": 3,
        "head_channels": 16,
        "feature_channels": 16,
    },
    "supernet": {
        "epochs": 2.0,
        "warmup_epochs": 0.5,
        "batch_size": 64,
        "trainer": {"steps_per_loop": 3, "checkpoint_interval": 6},
    },
    "shrink": {
        "every_epochs": 1.0,
        "remove": 2,
        "num_samples": 30,
        "images": 64,
        "batch_size": 64,
        "min_pair_count": 2,
    },
    "search": {
        "population": 8,
        "parents": 3,
        "generations": 3,
        "crossover": 3,
        "mutation": 3,
        "max_macs": 60_000,
        "calibration_images": 512,
        "calibration_batch": 64,
    },
    "retrain": {
        "epochs": 2.0,
        "warmup_epochs": 0.5,
        "batch_size": 64,
        "trainer": {"steps_per_loop": 3, "checkpoint_interval": 6},
    },
    "export": {"parity_examples": 8},
}


def start_train(*arguments: str, stderr=subprocess.PIPE, **kwargs) -> subprocess.Popen:
    """Starts `python -m neas_tf.train` with flags, in an environment as people have it."""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.Popen(
        [sys.executable, "-m", "neas_tf.train", *arguments],
        cwd=paths.project_file(),
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        text=True,
        env=environment,
        **kwargs,
    )


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """The files below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def give_supernet(run):
    """Fills a run's folder with params and a 'trained' supernet, made in no time; returns the run."""
    import tensorflow as tf

    from neas_tf.common.files import write_json_atomic
    from neas_tf.run.identity import Identity, bounds_of

    with run.writing():
        bounds = {"budget": bounds_of(run.config, run.table)}
        Identity("supernet", run.config, run.model_dir, run.info).record(bounds, True)
        checkpoint = tf.train.Checkpoint(step=tf.Variable(40))
        manager = tf.train.CheckpointManager(checkpoint, str(run.folder("supernet")), 1)
        manager.save(checkpoint_number=40)
        write_json_atomic(run.folder("shrink", "alive.json"), run.full.to_dict())
    return run


class QuickEvaluator:
    """In place of the search stage's evaluator: scores from the key alone."""

    make_bar = None

    def __init__(self, make, look_again, config, history):
        pass

    def __call__(self, architectures):
        from neas_tf.search.candidate import Score

        for architecture in architectures:
            yield Score(len(architecture.key) / 100, (0.1, 0.2))
