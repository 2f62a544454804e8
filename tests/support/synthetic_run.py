"""Writes a made-up but realistic model_dir, for tests of the report and for looking at pictures."""

import json
import math
from pathlib import Path

import numpy as np
import yaml

from neas_tf.common.normalisation import Normalisation
from neas_tf.cost.cost_table import CostTable
from neas_tf.ensemble.confusion import Confusion, Pictures
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.uncertainty.measures import Uncertainty

SMALL = SearchSpace.from_dict(
    {
        "name": "digits",
        "input_size": 16,
        "input_channels": 1,
        "num_classes": 10,
        "stem_stride": 1,
        "block_channels": 0,
        "stages": [[16, 2, 1], [24, 3, 2], [40, 2, 2]],
        "operators": ["k3e4", "k3e6", "k5e4", "k5e6", "skip"],
        "min_split": 3,
        "max_split": 7,
        "head_channels": 96,
        "feature_channels": 128,
    }
)


def draw(alive: ShrunkSpace, rng: np.random.Generator) -> Architecture:
    space = alive.space
    split = int(rng.integers(space.min_split, space.max_split + 1))
    columns = []
    for i in range(space.num_layers):
        if i < split:
            names = alive.alive_operators[i]
            columns.append([names[rng.integers(len(names))]] * alive.num_paths)
        else:
            rows = alive.alive[i]
            columns.append(list(rng.permutation(rows[rng.integers(len(rows))])))
    return Architecture(split, tuple(tuple(map(str, row)) for row in zip(*columns, strict=True)))


def without_nan(values):
    if np.ndim(values):
        return [without_nan(v) for v in values]
    return None if np.isnan(values) else round(float(values), 5)


def shrink_once(alive: ShrunkSpace, index: int, drop: int, rng) -> tuple[dict, ShrunkSpace]:
    space, layers, scores = alive.space, [], []
    whole = ShrunkSpace.full(space, alive.num_paths, alive.heterogeneous)
    for layer in space.layers:
        splits = alive.can_split(layer.number)
        n, names = len(layer.operators), list(layer.operators)
        place = rng.normal(size=(n, 3)) * (0.4 + layer.number / 20)
        distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
        similarity = np.exp(-4e-3 * (3 + distance * (1 - np.eye(n))))
        np.fill_diagonal(similarity, 1.0)
        quality = 0.42 + 0.02 * rng.normal(size=n) - 0.05 * np.array([x == "skip" for x in names])
        rows = []
        for combination in whole.alive[layer.number - 1]:
            pick = [names.index(x) for x in combination]
            kernel = similarity[np.ix_(pick, pick)] * np.outer(quality[pick], quality[pick])
            living = combination in alive.alive[layer.number - 1]
            rows.append(
                {
                    "operators": list(combination),
                    "score": float(np.linalg.det(kernel)),
                    "alive_before": living,
                    "dropped": False,
                }
            )
            if living and splits:
                scores.append((rows[-1]["score"], layer.number, combination, rows[-1]))
        layers.append(
            {
                "layer": layer.number,
                "operators": names,
                "similarity": without_nan(similarity if splits else np.full((n, n), np.nan)),
                "quality": without_nan(quality if splits else np.full(n, np.nan)),
                "pair_counts": [[20] * n] * n,
                "operator_counts": [40] * n,
                "combinations": rows,
            }
        )
    dropped = []
    for score, number, combination, row in sorted(scores, key=lambda item: item[:3]):
        if len(dropped) < drop and len(alive.alive[number - 1]) > 1:
            alive = alive.without(number, combination)
            row["dropped"] = True
            dropped.append({"layer": number, "operators": list(combination), "score": score})
    report = {
        "format": "neas-shrink/1",
        "index": index,
        "step": 600 * index,
        "epoch": 9.6 * index,
        "metric": "diversity",
        "num_samples": 1000,
        "beta": 1e-3,
        "gamma": 1.0,
        "quality_power": 1.0,
        "distance_quantiles": {"min": 1.0, "q25": 2.0, "median": 3.0, "q75": 4.0, "max": 9.0},
        "layers": layers,
        "dropped": dropped,
        "alive": alive.to_dict(),
    }
    return report, alive


def confusion(accuracies, examples: int, rng) -> dict:
    """A test in which every path errs on its own, and the ensemble follows path 1."""
    counts = Confusion(10, len(accuracies))
    labels = rng.integers(10, size=examples)
    columns = []
    for accuracy in [*accuracies, accuracies[0]]:
        wrong = (labels + rng.integers(1, 4, size=examples)) % 10
        columns.append(np.where(rng.random(examples) < accuracy, labels, wrong))
    counts.add(labels, np.stack(columns, 1))
    return counts.to_dict([f"digit {i}" for i in range(10)])


def pictures(num_paths: int, rng) -> dict:
    """What the report shows of the test's images: noise of 12 pixels a side."""
    found = Pictures(10)
    logits = rng.normal(size=(200, num_paths, 10))
    logits = np.concatenate([logits, logits.mean(1, keepdims=True)], 1)
    noise = np.clip(Normalisation().undo(rng.normal(size=(200, 12, 12, 3))), 0, 255)
    found.add(noise.astype(np.uint8), rng.integers(10, size=200), logits)
    return found.to_dict([f"digit {i}" for i in range(10)])


def uncertainty(num_paths: int, rng) -> dict:
    """A test in which the paths agree more where they are right."""
    found, labels = Uncertainty(num_paths, 1.5), rng.integers(10, size=2_000)
    logits = rng.normal(size=(2_000, num_paths, 10)) + 4 * np.eye(10)[labels][:, None]
    found.add(labels, np.concatenate([logits, logits.mean(1, keepdims=True)], 1))
    return found.to_dict()


def write_lines(path: Path, rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def write_run(
    folder: Path,
    space: SearchSpace = SMALL,
    num_paths: int = 2,
    shrinks: int = 3,
    drop: int = 4,
    generations: int = 4,
    population: int = 12,
    seed: int = 0,
) -> Path:
    """Writes a whole run and returns its folder."""
    rng = np.random.default_rng(seed)
    alive = ShrunkSpace.full(space, num_paths)
    for index in range(1, shrinks + 1):
        report, alive = shrink_once(alive, index, drop, rng)
        write_json(folder / f"shrink/shrink_{index:02d}.json", report)
    write_json(folder / "shrink/alive.json", alive.to_dict())

    pool = [draw(alive, rng) for _ in range(20 * population * max(1, generations // 4))]
    table = CostTable(space)
    costs = np.array([table.cost(a).macs for a in pool])
    limit = int(np.quantile(costs, 0.5))
    pool = [(a, int(c)) for a, c in zip(pool, costs, strict=True) if c <= limit]
    history, seen = [], set()
    for generation in range(generations):
        for _ in range(population):
            tries = 1 if generation == 0 else min(6, 1 + generation)
            picks = [pool[i] for i in rng.integers(len(pool), size=tries)]
            architecture, macs = max(picks, key=lambda pair: pair[1])
            if architecture.key in seen:
                continue
            seen.add(architecture.key)
            accuracy = 0.61 + 0.06 * math.tanh(1.6 * macs / limit - 0.9)
            accuracy += float(rng.normal(scale=0.006)) + 0.0022 * math.log1p(generation)
            row = {
                "candidate": len(history),
                "generation": generation,
                "origin": "random" if generation == 0 else ("crossover", "mutation")[_ % 2],
                "architecture": architecture.to_dict(),
                "key": architecture.key,
                "accuracy": accuracy,
                "path_accuracies": [accuracy - 0.01] * num_paths,
                "macs": macs,
                "paper_flops": table.cost(architecture).paper_flops,
                "params": table.cost(architecture).params,
            }
            history.append(row)
    write_lines(folder / "search/history.jsonl", history)
    best = max(history, key=lambda row: row["accuracy"])
    write_json(
        folder / "search/best.json", {**best["architecture"], "x_accuracy": best["accuracy"]}
    )

    accuracies = [0.951 - 0.004 * k for k in range(num_paths)]
    results = {
        "path_accuracies": accuracies,
        "ensemble_accuracy": 0.9585,
        "test_examples": 10_000,
        "top5": 0.998,
        "architecture": best["key"],
        "macs": best["macs"],
        "params": best["params"],
        "paper_flops": best["paper_flops"],
    }
    write_json(folder / "retrain/results.json", results)
    write_json(folder / "retrain/confusion.json", confusion(accuracies, 10_000, rng))
    write_json(folder / "retrain/uncertainty.json", uncertainty(num_paths, rng))
    write_json(folder / "retrain/pictures.json", pictures(num_paths, np.random.default_rng(seed)))
    for stage, steps, start in (("supernet", 5000, 0.1), ("retrain", 8000, 0.4)):
        rows = []
        for step in range(20, steps + 1, 20):
            t = step / steps
            loss = num_paths * (0.35 + 2.0 * math.exp(-5 * t) + 0.12 * rng.normal() * (1.2 - t))
            row = {"step": step, "epoch": 80 * t, "loss": loss, "learning_rate": start * (1 - t)}
            for k in range(num_paths):
                row[f"accuracy_{k + 1}"] = 0.9 - 0.75 * math.exp(-5 * t) + 0.015 * rng.normal()
            row["ensemble_accuracy"] = 0.925 - 0.75 * math.exp(-5 * t) + 0.012 * rng.normal()
            if step % 1000 == 0:
                row["validation_ensemble_accuracy"] = 0.93 - 0.7 * math.exp(-5 * t)
            rows.append(row)
        write_lines(folder / stage / "metrics.jsonl", rows)
    export = folder / "export"
    (export / "saved_model" / "variables").mkdir(parents=True)
    (export / "model.tflite").write_bytes(b"t" * 3_514_321)
    (export / "saved_model" / "saved_model.pb").write_bytes(b"p" * 1_000)
    (export / "saved_model" / "variables" / "data").write_bytes(b"v" * 2_000)
    parity = {"max_abs_diff": 3.1e-6, "examples": 256, "agreement": 1.0}
    for file, size in (("model.tflite", 3_514_321), ("saved_model", 3_000)):
        value = {"file": file, "bytes": size, "sha256": "ab" * 32, "parity": parity}
        write_json(export / f"{file}.json", {**value, "macs": best["macs"]})
    timing = {"supernet": 4983.2, "search": 312.5, "retrain": 2530.0, "export": 12.3}
    write_json(folder / "timing.json", timing)
    params = {"search": {"max_macs": limit, "population": population}, "space": space.to_dict()}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder
