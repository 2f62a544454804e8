"""What is alive behind a shrink: shares of each operator's combinations, fate of each pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neas_tf.space.shrunk_space import ShrunkSpace


def alive_shares(alive: ShrunkSpace) -> np.ndarray:
    """(d, N): of the combinations with an operator, the share alive; NaN where it never was."""
    space = alive.space
    whole = ShrunkSpace.full(space, alive.num_paths, alive.heterogeneous)
    shares = np.full((space.num_layers, len(space.operators)), np.nan)
    for i, (left, before) in enumerate(zip(alive.alive, whole.alive, strict=True)):
        for j, name in enumerate(space.operators):
            total = sum(name in row for row in before)
            if total:
                shares[i, j] = sum(name in row for row in left) / total
    return shares


def pair_states(layer: Mapping[str, Any]) -> dict[tuple[int, int], str]:
    """For i < j: 'alive', 'dropped' (in this shrink) or 'gone', over combinations with both."""
    names = list(layer["operators"])
    states: dict[tuple[int, int], str] = {}
    rank = {"gone": 0, "dropped": 1, "alive": 2}
    for combination in layer.get("combinations") or ():
        state = "alive" if combination.get("alive_before", True) else "gone"
        if state == "alive" and combination.get("dropped"):
            state = "dropped"
        members = sorted(names.index(n) for n in combination["operators"] if n in names)
        for a in range(len(members)):
            for b in range(a + 1, len(members)):
                pair = (members[a], members[b])
                if pair[0] != pair[1] and rank[state] >= rank[states.get(pair, "gone")]:
                    states[pair] = state
    return states
