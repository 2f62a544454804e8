"""What a search leaves on disk, and how an interrupted one is taken up again.

`history.jsonl` gets one line per scored ensemble, synced before the next one is taken;
`state.json` is replaced after every generation; `best.json` is the winner. None of them holds a
time or a machine's name, so an interrupted search ends with the bytes of an undisturbed one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from neas_tf.common import files
from neas_tf.common.errors import NeasError, check, check_int, fail, is_number
from neas_tf.search.candidate import DISAGREEMENT, Candidate, Costs, Score
from neas_tf.search.fitness import ACCURACY, HALVING, fitness_values
from neas_tf.search.pareto import unbeaten
from neas_tf.space.architecture import Architecture

STATE_FORMAT = "neas-search-state/1"
PARETO_FORMAT = "neas-pareto/1"
_STATE_FIELDS = (
    "format", "search", "generation", "candidates", "population", "parents", "best", "rng",
    "finished", "reason",
)  # fmt: skip


def ensemble_identity(architecture: Architecture) -> Hashable:
    """Equal for two candidates that are the same ensemble, so that only one gets scored.

    The order of the paths says nothing about the ensemble that is retrained, so it does not count
    (in the supernet it decides only which path uses which head). A single path is the same network
    wherever it "splits".
    """
    if architecture.num_paths == 1:
        return architecture.paths
    return architecture.split_point, tuple(sorted(architecture.paths))


def best_candidate(candidates: Sequence[Candidate], fitness: str = ACCURACY) -> Candidate:
    """Highest fitness; ties go to the lower MACs, then to the earlier one.

    One that a race stopped comes after all that finished.
    """
    values = fitness_values(candidates, fitness).tolist()
    rows = zip(candidates, values, strict=True)
    return min(rows, key=lambda row: (not row[0].finished, -row[1], row[0].macs, row[0].number))[0]


def pareto_candidates(
    candidates: Sequence[Candidate], metric: str, fitness: str = ACCURACY
) -> list[Candidate]:
    """Those that no other beats in fitness, a cost and perhaps disagreement, by cost, then number."""
    mask = unbeaten(*objectives(candidates, metric, fitness))
    front = [c for c, kept in zip(candidates, mask, strict=True) if kept]
    return sorted(front, key=lambda c: (c.costs[metric], c.number))


def objectives(
    candidates: Sequence[Candidate], metric: str, fitness: str = ACCURACY
) -> tuple[list[int | float], list[float], list[float] | None]:
    """Costs and fitnesses, and where all candidates have one, disagreements."""
    apart = [c.disagreement for c in candidates if c.disagreement is not None]
    costs, values = [c.costs[metric] for c in candidates], fitness_values(candidates, fitness)
    third = apart if candidates and len(apart) == len(candidates) else None
    return costs, values.tolist(), third


def read_history(path: str | os.PathLike[str]) -> list[Candidate]:
    """Reads a history without touching it; a half-written last line is left out.

    Raises:
      NeasError: for an unreadable file, or naming the first line that is no candidate.
    """
    return parse_history(files.read_bytes(path, "search history"), Path(path))[0]


def parse_history(content: bytes, path: Path) -> tuple[list[Candidate], bytes, bytes]:
    """(candidates, the bytes of their lines, what a crash left of one more line) of a history's content.

    Raises:
      NeasError: names the first line that is no candidate.
    """
    *lines, tail = content.split(b"\n")
    if tail and _is_json(tail):  # Only the line feed is missing: nothing of the score is lost.
        lines, content, tail = [*lines, tail], content + b"\n", b""
    candidates: list[Candidate] = []
    seen: dict[Hashable, int] = {}
    generation = -1
    for i, line in enumerate(lines):
        where = f"search history {str(path)!r}, line {i + 1}"
        value = files.parse_json(line, f"{where}:", nan=True)  # refused by name of the field
        try:
            candidate = Candidate.from_dict(value)
        except NeasError as error:
            raise NeasError(f"{where}: {error}") from None
        check(candidate.number == i, f"{where}: candidate", candidate.number, f"{i}")
        in_order = generation <= candidate.generation <= generation + 1
        allowed = f"{max(generation, 0)} or {generation + 1}"
        check(in_order, f"{where}: generation", candidate.generation, allowed)
        first = seen.setdefault(ensemble_identity(candidate.architecture), i)
        if first != i:
            raise NeasError(f"{where}: holds the ensemble of line {first + 1} once more.")
        generation = candidate.generation
        candidates.append(candidate)
    return candidates, content[: len(content) - len(tail)], tail


class History:
    """The files of one search in its folder: history.jsonl, state.json, best.json.

    A search with two objectives has pareto.json too.

    Attributes:
      candidates: everything scored so far, by number.
    """

    def __init__(
        self, directory: str | os.PathLike[str], costs: Callable[[Architecture], Costs]
    ) -> None:
        """Binds a folder (it may not exist yet); nothing is read or written before `open`.

        `costs` gives the costs that a line records; 'macs' at least.
        """
        self.directory = Path(directory)
        self.path = self.directory / "history.jsonl"
        self.state_path = self.directory / "state.json"
        self.best_path = self.directory / "best.json"
        self.pareto_path = self.directory / "pareto.json"
        self.candidates: list[Candidate] = []
        self._costs = costs

    def open(
        self,
        search: Mapping[str, Any],
        first_state: Mapping[str, Any],
        why_not: Callable[[Architecture], str] = lambda architecture: "",
    ) -> dict[str, Any]:
        """Starts a search, or takes up the one that the folder holds.

        Args:
          search: everything that the course of the search depends on (settings, space, budget),
            as JSON; a folder with another one is refused.
          first_state: the other fields of the state that a new search starts from.
          why_not: the reason why an ensemble cannot belong to this search, '' if it can.

        Returns:
          The state of the last finished generation, or `first_state`.

        Raises:
          NeasError: for a folder of another search, and for a line that does not belong there, naming
            it. Nothing is changed then.
        """
        search = json.loads(json.dumps(search, allow_nan=False))
        begun = self._begun()
        state = self.check(search)
        if not begun and not state.get("candidates"):  # Nothing scored yet, so nothing to lose.
            state = {"format": STATE_FORMAT, "search": search, **first_state}
            self.write_state(state)
            return state
        if not begun:
            return state
        content = files.read_bytes(self.path, "search history")
        candidates, content, tail = parse_history(content, self.path)
        for candidate in candidates:
            where = f"search history {str(self.path)!r}, line {candidate.number + 1}"
            reason = why_not(candidate.architecture)
            if reason:
                raise NeasError(f"{where}: does not belong to this search: {reason}")
            costs = self._costs_of(candidate.architecture)
            if costs != candidate.costs:
                fail(f"{where}: costs", dict(candidate.costs), str(costs))
        if tail:
            logging.warning(
                "Search history %s: dropped line %d, half-written (%d bytes) when the last run "
                "ended.",
                self.path,
                len(candidates) + 1,
                len(tail),
            )
        if len(content) != self.path.stat().st_size:
            files.write_bytes_atomic(self.path, content)
        self.candidates = candidates
        return state

    def check(self, search: Mapping[str, Any]) -> dict[str, Any]:
        """Refuses a folder of another search (see `open`), and changes nothing; its state, or an empty one."""
        begun = self._begun()
        if not self.state_path.exists():
            if begun:
                raise NeasError(
                    f"search: {str(self.path)!r} has no state.json beside it that says which "
                    f"search it belongs to; expected a folder with both or neither."
                )
            return {}
        state = self._read_state()
        context = state["search"].get("context") if isinstance(state["search"], Mapping) else None
        if isinstance(context, Mapping) and "racing" in context:
            raise NeasError(
                f"search: {str(self.directory)!r} holds a search with search.racing, which is no "
                f"more; expected another folder, perhaps with search.fitness={HALVING}."
            )
        search = json.loads(json.dumps(search, allow_nan=False))
        if begun or state["candidates"]:
            remedy = "the same search again, or another folder"
            files.check_same(
                f"search: {str(self.directory)!r}", "search", state["search"], search, remedy
            )
        return state

    def _begun(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def append(
        self, architecture: Architecture, generation: int, origin: str, score: Score
    ) -> Candidate:
        """Adds a scored ensemble; its line is on disk when this returns."""
        if not is_number(float(score.accuracy)):
            fail(f"accuracy of {architecture.key}", score.accuracy, "a finite number")
        candidate = Candidate(
            len(self.candidates),
            generation,
            origin,
            architecture,
            float(score.accuracy),
            tuple(float(accuracy) for accuracy in score.path_accuracies),
            self._costs_of(architecture),
            disagreement=score.disagreement,
            numbers={name: float(value) for name, value in score.numbers.items()},
            looks=score.looks,
        )
        line = json.dumps(candidate.to_dict(), allow_nan=False) + "\n"
        self.directory.mkdir(parents=True, exist_ok=True)
        with open(self.path, "ab") as stream:
            stream.write(line.encode("utf-8"))
            stream.flush()
            os.fsync(stream.fileno())
        self.candidates.append(candidate)
        return candidate

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replaces state.json."""
        files.write_json_atomic(self.state_path, state)

    def write_best(self, best: Candidate, fitness: str = ACCURACY) -> None:
        """Writes the winner as an architecture file with its score and costs beside it."""
        extras = {
            "accuracy": best.accuracy,
            "path_accuracies": list(best.path_accuracies),
            "candidate": best.number,
            **best.costs,
            **best.numbers,
            **({} if fitness == ACCURACY else {"fitness": fitness}),
        }
        value = {**best.architecture.to_dict(), **{f"x_{k}": v for k, v in extras.items()}}
        files.write_json_atomic(self.best_path, value)

    def write_pareto(
        self, candidates: Sequence[Candidate], metric: str, fitness: str = ACCURACY
    ) -> None:
        """Writes the candidates of `pareto_candidates`."""
        front = pareto_candidates(candidates, metric, fitness)
        value = {"format": PARETO_FORMAT, "cost": metric, "front": [c.to_dict() for c in front]}
        third = objectives(candidates, metric)[2]
        if third or fitness != ACCURACY:
            value["objectives"] = [fitness, metric, *([DISAGREEMENT] if third else [])]
        files.write_json_atomic(self.pareto_path, value)

    def restore(self, rng: np.random.Generator, state: Any) -> None:
        """Puts a generator into the state that state.json holds."""
        try:
            rng.bit_generator.state = state
        except (ValueError, TypeError, KeyError, OverflowError):
            fail(f"search state {str(self.state_path)!r}: rng", state, "a generator's state")

    def _costs_of(self, architecture: Architecture) -> dict[str, int | float]:
        costs = self._costs(architecture)
        return {k: v.item() if isinstance(v, np.generic) else v for k, v in costs.items()}

    def _read_state(self) -> dict[str, Any]:
        where = f"search state {str(self.state_path)!r}"
        state = files.read_json(self.state_path, "search state")
        check(isinstance(state, dict), where, state, "a JSON object")
        found = state.get("format")
        check(found == STATE_FORMAT, f"{where}: format", found, STATE_FORMAT)
        missing = [name for name in _STATE_FIELDS if name not in state]
        check(not missing, f"{where}: keys", sorted(state), f"{', '.join(missing)} too")
        check_int(f"{where}: generation", state["generation"], 0)
        check_int(f"{where}: candidates", state["candidates"], 0)
        return state


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(files.parse_json(line, "line"), dict)
    except NeasError:
        return False
