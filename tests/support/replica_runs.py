"""Measures and scores ensembles here and on replicas: `python replica_runs.py`; prints what it found as JSON.

A process of its own, for TensorFlow splits a CPU only before it starts. The replicas are logical CPUs
of a MirroredStrategy, which stand for the cores of a TPU: what a TPU is given goes to them the same way.
"""

from __future__ import annotations

import json
import os
import tempfile
import types
from collections import Counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context
from tiny_training import draw, shaken
from xla_worker import MBCONV, space_of

from neas_tf.run.parts import measuring
from neas_tf.search.evaluation import CandidateEvaluator
from neas_tf.search.replicas import Here, Replicas
from neas_tf.shrinking.drops import ShrinkSettings
from neas_tf.space.sampling import uniform
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet
from neas_tf.supernet.switches import safe_switches

LARGEST = 4
SPACE = space_of(MBCONV)
FULL = ShrunkSpace.full(SPACE, 2)
# Five batches of each kind, which neither 2 nor 4 replicas share out evenly; of the last one that
# accuracy is measured on, there are three images.
CALIBRATION, IMAGES, LABELS = draw(42, 1)[0], *draw(43, 2)
SIZES = {"calibration_batch": 8, "batch_size": 10}


def score_list(evaluator: CandidateEvaluator, seed: int) -> list:
    """Right answers and log-likelihoods of a generation."""
    rng = np.random.default_rng(seed)
    scores = evaluator.evaluate_all([uniform(FULL, rng) for _ in range(5)])
    count = evaluator.images
    right = [[round(count * a) for a in (s.accuracy, *s.path_accuracies)] for s in scores]
    return [right, [list(s.numbers.values()) for s in scores], [s.disagreement for s in scores]]


def measurements(functions: measuring.Functions) -> list:
    """Distances and right answers of a shrink, with moments of batches and of all images."""
    config = types.SimpleNamespace(
        shrink=types.SimpleNamespace(images=42, batch_size=8),
        data=types.SimpleNamespace(search_fraction=0.0),
        seed=0,
    )
    found = []
    for batch_norm in ("batch", "recalculated"):
        settings = ShrinkSettings(num_samples=3, min_pair_count=1, batch_norm=batch_norm)
        with safe_switches():
            own = measuring.measure(functions, FULL, settings, None, config, 1)
        found.append([own.distances.tolist(), np.rint(own.accuracies * 40).tolist()])
    return found


class Traces:
    """Counts how often the supernet is traced."""

    def __init__(self) -> None:
        self.count, drawn = 0, Supernet.drawn

        def counted(model, architecture):
            self.count += 1
            return drawn(model, architecture)

        Supernet.drawn = counted


def convolutions() -> dict[str, int]:
    """How many convolutions and calls of layers lie on each device, in the graphs that ran."""
    found: Counter[str] = Counter()
    for function in context.context().export_run_metadata().function_graphs:
        for graph in function.partition_graphs:  # one for each device
            for node in graph.node:
                if "Conv2D" in node.op or "PartitionedCall" in node.op:
                    found[node.device.rpartition("device:")[2]] += 1
    return dict(found)


def watched_results(strategy: tf.distribute.Strategy) -> Counter[str]:
    """Counts where what the replicas return lies, which for a program of XLA is where it ran."""
    found, local = Counter[str](), strategy.experimental_local_results

    def counted(value):
        results = local(value)
        found.update(result.device.rpartition("device:")[2] for result in results)
        return results

    strategy.experimental_local_results = counted
    return found


def on_replicas(count: int, xla: bool, weights: str, traces: Traces) -> dict:
    """Everything on so many replicas."""
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)])
    with strategy.scope():
        model = Supernet(SPACE, 2, seed=5, name="supernet")
        tf.train.Checkpoint(model=model).read(weights).assert_consumed()
    replicas, results = Replicas(strategy), watched_results(strategy)
    evaluator = CandidateEvaluator(
        model,
        CALIBRATION,
        IMAGES,
        LABELS,
        **SIZES,
        disagreement=True,
        xla=xla,
        replicas=replicas,
    )
    context.context().enable_graph_collection()
    scores = [score_list(evaluator, 1)]
    graphs = convolutions()
    context.context().disable_graph_collection()
    first = traces.count
    scores.append(score_list(evaluator, 2))
    result = {
        "scores": scores,
        "ran_on": dict(results) if xla else graphs,
        "new_traces": traces.count - first,
    }
    with strategy.scope():
        result["measured"] = measurements(measuring.forward_functions(model, xla, None, replicas))
    return result


def main() -> None:
    """Runs all cases."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * LARGEST
    tf.config.set_logical_device_configuration(cpu, devices)
    measuring.data.make_images = lambda *_: (IMAGES[:42], LABELS[:42])
    model, traces = shaken(Supernet(SPACE, 2, seed=4, name="supernet")), Traces()
    tree = CandidateEvaluator(model, CALIBRATION, IMAGES, LABELS, **SIZES, disagreement=True)
    here = {
        "scores": [score_list(tree, seed) for seed in (1, 2)],
        "measured": measurements(measuring.forward_functions(model)),
    }
    # Whole ensembles, batch after batch, without a strategy.
    whole = CandidateEvaluator(
        model, CALIBRATION, IMAGES, LABELS, **SIZES, disagreement=True, replicas=Here()
    )
    here["whole"] = [score_list(whole, seed) for seed in (1, 2)]
    with tempfile.TemporaryDirectory() as folder:
        weights = tf.train.Checkpoint(model=model).write(os.path.join(folder, "weights"))
        result = {
            "here": here,
            "2, XLA": on_replicas(2, True, weights, traces),
            "4": on_replicas(4, False, weights, traces),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
