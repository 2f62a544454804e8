"""A plan over a toy space, and a runner that makes results up from a unit's key in no time."""

import zlib

import numpy as np

from neas_tf.cost.cost_table import CostTable
from neas_tf.search.fitness import NUMBERS
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.study import units
from neas_tf.study.settings import StudySettings, TruthSettings
from neas_tf.study.tables.plan import Plan
from neas_tf.uncertainty.measures import MEASURES

SPACE = SearchSpace.from_dict(
    {
        "name": "toy",
        "input_size": 16,
        "num_classes": 10,
        "stem_stride": 1,
        "block_channels": 0,
        "stages": [[8, 2, 2], [12, 2, 2]],
        "operators": ["k3e1", "k3e2", "k5e1", "k5e2", "skip"],
        "min_split": 1,
        "max_split": 4,
        "head_channels": 16,
        "feature_channels": 16,
    }
)
BASE = {
    "num_paths": 2,
    "heterogeneous": True,
    "space": SPACE.to_dict(),
    "shrink": {"metric": "diversity", "remove": 4, "every_epochs": 1.0, "quality_power": 1.0},
    "search": {"max_macs": 200_000, "method": "evolution", "population": 8, "generations": 3},
    "supernet": {"epochs": 1.0},
    "retrain": {"epochs": 1.0},
}


def toy_plan(**settings) -> Plan:
    values = {"seeds": (0, 1), "ensembles": 8, "budgets": (200_000, 300_000), "paths": (1, 2, 3)}
    values |= {"top": 5, "resamples": 20, "shrinks": {"p4": {"quality_power": 4.0}}}
    values["recipes"] = {"zero gamma": {"supernet": {"zero_init_residual": True}}}
    values |= {"rival_depth": 0.3, "images": 10, "latency_shares": (0.5,)}
    values["truth"] = TruthSettings(280_000, 0.1, 8, retrain={"epochs": 3.0})
    return Plan(StudySettings(**(values | settings)), BASE, SPACE)


def pretend(unit: units.Unit) -> dict:
    """A result of the right form, a function of the unit's key."""
    rng = np.random.default_rng(zlib.crc32(unit.key.encode()))
    if isinstance(unit, units.Supernet):
        full = ShrunkSpace.full(SPACE, 2)
        dropped = [
            {"layer": m, "operators": list(full.alive[m - 1][rng.integers(3)]), "score": 0.1}
            for m in (2, 3)
        ]
        alive = [[list(row) for row in rows] for rows in full.alive]
        shrinks = [{"step": 1, "beta": 0.1, "distance_quantiles": [], "dropped": dropped}]
        return {
            "alive": alive,
            "combinations": full.num_combinations - 2,
            "all_combinations": full.num_combinations,
            "shrinks": shrinks,
            "training": {},
        }
    if isinstance(unit, units.Scores):
        numbers = {name: (-rng.random(len(unit.ensembles))).tolist() for name in NUMBERS}
        accuracies = rng.random(len(unit.ensembles)).tolist()
        return {"accuracies": accuracies, "path_accuracies": [], "numbers": numbers}
    if isinstance(unit, units.Pace):
        return {"ratio": 0.5, "epoch_seconds": [2.0, 1.0], "machine": "none"}
    if isinstance(unit, units.Uncertain):
        paths = Architecture.from_key(unit.training.ensemble).num_paths
        rows = [
            {**{name: float(value) for name, value in zip(MEASURES, rng.random(6), strict=True)}}
            | {"risk_coverage": [[0.1, 0.0], [1.0, float(rng.random())]]}
            for _ in range(paths + 1)
        ]
        about = {"mean_right": 0.1, "mean_wrong": 0.2, "auroc": 0.7} if paths > 1 else None
        return {"paths": rows[1:], "ensemble": rows[0], "disagreement": about}
    if isinstance(unit, units.Robustness):
        paths = Architecture.from_key(unit.training.ensemble).num_paths
        errors = rng.random((paths + 1, 15, 5))
        rows = [{"clean": 0.1, "errors": e.tolist(), "mean": float(e.mean())} for e in errors]
        return {"examples": 10, "ensemble": rows[0], "paths": rows[1:]}
    if isinstance(unit, units.Costs):
        looked = 100.0 * (unit.search is not None)
        return {"supernet": 2 * looked, "search": looked, "epoch": 50.0, "machine": "none"}
    if isinstance(unit, units.LatencyTable):
        return {"table": {}}
    if isinstance(unit, units.Search):
        table, full = CostTable(SPACE), ShrunkSpace.full(SPACE, 2)
        found = [sampling.uniform(full, rng) for _ in range(24)]
        rows = [[a.key, rng.random(), table.cost(a).macs, i // 8] for i, a in enumerate(found)]
        best = max(range(24), key=lambda i: rows[i][1])
        return {"candidates": rows, "best": best, "reason": ""}
    if isinstance(unit, units.Training):
        architecture = Architecture.from_key(unit.ensemble)
        values = {"macs": int(rng.integers(100_000, 200_000)), "params": 4000, "top5": 0.9}
        return values | {
            "ensemble_accuracy": rng.random(),
            "path_accuracies": rng.random(architecture.num_paths).tolist(),
            "architecture": architecture.key,
        }
    if isinstance(unit, units.Comparison):
        return {name: rng.random() for name in ("disagreement", "similarity", "distance", "cka")}
    if isinstance(unit, units.Embedding):
        return {"points": rng.random((2, unit.images, 2)).tolist(), "labels": [0] * unit.images}
    return {"milliseconds": rng.random(), "machine": "none"}
