"""The widest and the narrowest ensemble of a shrunk space, for the sandwich rule."""

from __future__ import annotations

import numpy as np

from neas_tf.cost.cost_table import CostTable
from neas_tf.space.shrunk_space import ShrunkSpace


def widest_and_narrowest(shrunk: ShrunkSpace, table: CostTable) -> np.ndarray:
    """The ensembles with the most and the fewest MACs.

    Returns:
      int32 (2, 1 + K·d), rows as `Architecture.to_array` gives them. Of split points with equal MACs
      the widest takes the earliest, the narrowest the latest.
    """
    space, paths = shrunk.space, shrunk.num_paths
    shared, separate = (
        [values[:, 0] for values in kind] for kind in table.layer_choices(shrunk, ("macs",))
    )
    rows = []
    for sign, points in ((-1, space.split_points), (1, tuple(reversed(space.split_points)))):

        def macs(split: int, sign: int = sign) -> int:
            return sum(
                int((sign * kind[m]).min())
                for m in range(space.num_layers)
                for kind in (shared if m < split else separate,)
            )

        split = min(points, key=macs)
        columns = []
        for m in range(space.num_layers):
            if m < split:
                best = int((sign * shared[m]).argmin())
                columns.append([shrunk.alive_operator_indices[m][best]] * paths)
            else:
                best = int((sign * separate[m]).argmin())
                columns.append(list(shrunk.alive_combination_indices[m][best]))
        rows.append([split, *np.array(columns).T.ravel()])
    return np.array(rows, np.int32)
