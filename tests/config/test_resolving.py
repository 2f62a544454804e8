"""What the configuration leaves open: when the space shrinks."""

import pytest

from neas_tf.config.resolve import shrink_boundaries


@pytest.mark.parametrize(
    ("every", "per_epoch", "total", "expected"),
    [
        (3, 351.5625, 4219, [1055, 2109, 3164, 4219]),  # 3 epochs are 1054.7 steps
        (1, 2.53, 5, [3, 5]),
        (10, 1.0, 25, [10, 20]),
        (0.001, 1.0, 3, [1, 2, 3]),
        (0, 1.0, 5, []),
    ],
)
def test_shrinks_behind_every_so_many_epochs_the_last_included(every, per_epoch, total, expected):
    assert shrink_boundaries(every, per_epoch, total) == expected
