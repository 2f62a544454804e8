"""The folder behind a latency table: the models to time, and what was timed so far.

`manifest.json` says which file is which probe or ensemble; `samples.json` holds the times. Both
are functions of the request, so that a measurement resumes where it was killed, and files that
were timed elsewhere (a phone) find their meaning again.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neas_tf.common import console
from neas_tf.common.errors import NeasError, check, check_int, unknown_name
from neas_tf.common.files import (
    check_same,
    difference,
    read_json,
    write_bytes_atomic,
    write_json_atomic,
)
from neas_tf.common.folder_lock import LOCK_FILE
from neas_tf.cost.latency_plan import Piece, make_plan
from neas_tf.cost.latency_table import QUANTIZATIONS, LatencyTable
from neas_tf.latency.fit import fit_scale, kendall_tau, relative_errors
from neas_tf.space import sampling
from neas_tf.space.architecture import Architecture
from neas_tf.space.search_space import SearchSpace
from neas_tf.space.shrunk_space import ShrunkSpace

MANIFEST_FORMAT = "neas-latency-models/1"
SAMPLES_FORMAT = "neas-latency-samples/1"
MANIFEST, SAMPLES = "manifest.json", "samples.json"
_DRAWS = {"fit": 0xF17, "validation": 0x7A1}  # of which ensembles are drawn
_TRIES = 1000
_FILE = re.compile(r"[A-Za-z0-9_]{1,64}\.tflite")


@dataclasses.dataclass(frozen=True)
class Request:
    """What a table is for.

    Attributes:
      space: its operators, stem and head.
      num_paths: K of the ensembles that the table is fitted on.
      quantize: 'none' or 'int8', the form of the deployed graph.
      seed: of the ensembles.
    """

    space: SearchSpace
    num_paths: int = 2
    quantize: str = "none"
    seed: int = 0

    def __post_init__(self):
        check_int("num_paths", self.num_paths, 1, 64)
        if self.quantize not in QUANTIZATIONS:
            unknown_name("quantize", self.quantize, QUANTIZATIONS)
        check_int("seed", self.seed, 0, (1 << 62) - 1)

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "space": self.space.to_dict(),
            "num_paths": self.num_paths,
            "quantize": self.quantize,
            "seed": self.seed,
        }


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """One model to time.

    Attributes:
      file: name in the folder.
      kind: 'probe', or an ensemble of the 'fit' or the 'validation'.
      name: of the probe in `latency_plan.make_plan`, or the ensemble's canonical key.
    """

    file: str
    kind: str
    name: str

    def __post_init__(self):
        for field in ("file", "kind", "name"):
            value = getattr(self, field)
            check(isinstance(value, str), f"manifest: {field}", value, "a string")
        # The files are written, and deleted, in the folder of the manifest: nowhere else.
        check(_FILE.fullmatch(self.file) is not None, "manifest: file", self.file,
              "a name such as 'probe_000.tflite', without a folder")  # fmt: skip


def list_models(request: Request, num_fit: int, num_validation: int) -> tuple[ModelFile, ...]:
    """All models of a table: its probes, then different random ensembles for fit and validation.

    Larger numbers only add ensembles after the others.
    """
    probes = make_plan(request.space).probes
    result = [ModelFile(f"probe_{i:03d}.tflite", "probe", name) for i, name in enumerate(probes)]
    seen: set[str] = set()
    for kind, count in (("fit", num_fit), ("validation", num_validation)):
        draws = _ensembles(request, _DRAWS[kind])
        for i in range(count):
            tries = itertools.islice(draws, _TRIES)
            key = next((key for key in tries if key not in seen), None)
            if key is None:  # a space with hardly any ensembles
                break
            seen.add(key)
            result.append(ModelFile(f"{kind}_{i:03d}.tflite", kind, key))
    return tuple(result)


def _ensembles(request: Request, tag: int) -> Iterator[str]:
    """Endless random ensembles of a space, as canonical keys."""
    try:
        shrunk = ShrunkSpace.full(request.space, request.num_paths)
    except NeasError:  # fewer operators than paths
        shrunk = ShrunkSpace.full(request.space, request.num_paths, heterogeneous=False)
    rng = np.random.default_rng([request.seed, tag])
    while True:
        yield sampling.uniform(shrunk, rng).key


class WorkFolder:
    """Models and times of one request.

    Attributes:
      folder: where they are.
      request: what they are for.
      models: see `list_models`.
    """

    def __init__(self, folder: Path, request: Request, models: Sequence[ModelFile]):
        self.folder, self.request, self.models = Path(folder), request, tuple(models)

    def check(self) -> None:
        """Refuses a folder that holds something else; writes nothing.

        Raises:
          NeasError: names the first differences.
        """
        path = self.folder / MANIFEST
        if not path.exists():
            used = self.folder.exists() and any(
                not p.name.startswith(".") for p in self.folder.iterdir()
            )
            check(not used, "folder of models", str(self.folder), "a new or empty folder, or one "
                  "of the same measurement")  # fmt: skip
            return
        found = read_manifest(path)[0].to_dict()
        remedy = "the same one again, or another folder"
        where = f"folder of models: {str(self.folder)!r}"
        check_same(where, "measurement", found, self.request.to_dict(), remedy)

    def build(self, on_model: Callable[[], Any] = lambda: None) -> None:
        """Writes the manifest and the models that are not there yet (imports TensorFlow)."""
        value = {
            "format": MANIFEST_FORMAT,
            **self.request.to_dict(),
            "models": [dataclasses.asdict(model) for model in self.models],
        }
        write_json_atomic(self.folder / MANIFEST, value)
        plan = make_plan(self.request.space)
        for model in self.models:
            if not (self.folder / model.file).exists():
                with console.native_noise_off():
                    content = self._convert(model, plan.probes)
                write_bytes_atomic(self.folder / model.file, content)
            on_model()

    def _convert(self, model: ModelFile, probes: Mapping[str, tuple[Piece, ...]]) -> bytes:
        from neas_tf.latency.models import ensemble_model, probe_model

        space, quantize = self.request.space, self.request.quantize
        if model.kind == "probe":
            return probe_model(probes[model.name], space, quantize)
        return ensemble_model(Architecture.from_key(model.name), space, quantize)

    @property
    def files(self) -> dict[str, Path]:
        """Path of every model by its file name."""
        return {model.file: self.folder / model.file for model in self.models}

    def read_samples(self, settings: Mapping[str, Any]) -> dict[str, list[int]]:
        """The times of an earlier session with the same settings; empty without one."""
        path = self.folder / SAMPLES
        if not path.exists():
            return {}
        value = read_json(path, "samples")
        ok = isinstance(value, Mapping) and value.get("format") == SAMPLES_FORMAT
        check(ok, f"samples {str(path)!r}: format", value, SAMPLES_FORMAT)
        changes = difference(_comparable(value.get("settings", {})), _comparable(settings))
        if changes:
            raise NeasError(
                f"folder of models: {str(self.folder)!r} holds times taken otherwise "
                f"({'; '.join(changes)}); expected the same settings or another folder."
            )
        return {name: list(times) for name, times in value["samples"].items()}

    def write_samples(
        self, settings: Mapping[str, Any], samples: Mapping[str, Sequence[int]]
    ) -> None:
        """Replaces the times."""
        value = {"format": SAMPLES_FORMAT, "settings": dict(settings), "samples": dict(samples)}
        write_json_atomic(self.folder / SAMPLES, value, indent=None)

    def remove(self) -> None:
        """Deletes the models, the times and the manifest, and the folder when it is empty then."""
        for name in (*(model.file for model in self.models), SAMPLES, MANIFEST, LOCK_FILE):
            (self.folder / name).unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that must agree for times to be put together; there may be more rounds."""
    return {key: value for key, value in settings.items() if key != "rounds"}


def read_manifest(path: Path) -> tuple[Request, tuple[ModelFile, ...]]:
    """Reads a manifest; raises `NeasError` for anything else."""
    value = read_json(path, "manifest")
    check(isinstance(value, Mapping), "manifest", value, "a JSON object")
    found = value.get("format")
    check(found == MANIFEST_FORMAT, f"manifest {str(path)!r}: format", found, MANIFEST_FORMAT)
    names = ("space", "num_paths", "quantize", "seed", "models")
    missing = [name for name in names if name not in value]
    check(not missing, "manifest: keys", sorted(value), f"{', '.join(missing)} too")
    space = SearchSpace.from_dict(value["space"])
    request = Request(space, value["num_paths"], value["quantize"], value["seed"])
    models = []
    for row in value["models"] if isinstance(value["models"], list) else ():
        keys = {"file", "kind", "name"}
        check(isinstance(row, Mapping) and set(row) == keys, "manifest: models", row, str(keys))
        models.append(ModelFile(**row))
    return request, tuple(models)


def make_table(
    request: Request,
    models: Sequence[ModelFile],
    latencies: Mapping[str, float],
    device: str,
    measurement: Mapping[str, Any],
) -> LatencyTable:
    """The table that follows from the latencies of the models.

    Args:
      request: see there.
      models: of the request.
      latencies: ns by file name; of every probe, and of the ensembles that were timed.
      device: in words.
      measurement: how it was measured, for the table.

    Raises:
      NeasError: names the probes without a latency.
    """
    space, plan = request.space, make_plan(request.space)
    by_probe = {
        m.name: latencies[m.file] for m in models if m.kind == "probe" and m.file in latencies
    }
    missing = [m.file for m in models if m.kind == "probe" and m.file not in latencies]
    if missing or set(plan.probes) - set(by_probe):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        names = ", ".join(missing[:5]) or "those of another version"
        raise NeasError(f"latencies: none of {names}{more}; expected one of every probe.")
    entries, lost = {}, []
    for key, d in plan.entries.items():
        value = (by_probe[d.longer] - (by_probe[d.shorter] if d.shorter else 0)) / d.copies
        if value < 0:
            lost.append(key)
        entries[key] = max(0, round(value))
    table = LatencyTable(
        request.num_paths, request.quantize, entries, made_for=space.name, device=device,
        measurement={**measurement, "below_noise": lost, "space": space.to_dict()},
    )  # fmt: skip
    keys, sums, measured = _timed(table, models, latencies, space, "fit")
    scale, constant = fit_scale(sums, measured)
    table = dataclasses.replace(table, scale=scale, constant=round(constant))
    fit = _comparison(keys, _predict(table, keys, space), measured) if keys else {}
    table = dataclasses.replace(table, fit=fit)
    keys, predicted, measured = _timed(table, models, latencies, space, "validation")
    validation = _comparison(keys, predicted, measured) if keys else None
    return dataclasses.replace(table, validation=validation)


def _timed(
    table: LatencyTable,
    models: Sequence[ModelFile],
    latencies: Mapping[str, float],
    space: SearchSpace,
    kind: str,
) -> tuple[list[str], list[int], list[float]]:
    """Keys, predictions and latencies of the timed ensembles of one kind."""
    found = [m for m in models if m.kind == kind and m.file in latencies]
    keys = [m.name for m in found]
    return keys, _predict(table, keys, space), [latencies[m.file] for m in found]


def _predict(table: LatencyTable, keys: Sequence[str], space: SearchSpace) -> list[int]:
    return [table.predict_ns(Architecture.from_key(key), space) for key in keys]


def _comparison(
    keys: Sequence[str], predicted: Sequence[int], measured: Sequence[float]
) -> dict[str, Any]:
    errors = relative_errors(predicted, measured)
    return {
        "median_relative_error": round(float(np.median(errors)), 5),
        "largest_relative_error": round(float(errors.max()), 5),
        "kendall_tau": kendall_tau(predicted, measured),
        "ensembles": [
            {"key": key, "predicted_ns": round(p), "measured_ns": round(m)}
            for key, p, m in zip(keys, predicted, measured, strict=True)
        ],
    }
