import pytest
from hypothesis import given
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.operators import (
    PAPER_OPERATORS,
    Operator,
    bottleneck_width,
    divisible,
    squeeze_width,
)


def test_the_papers_operators():
    parsed = [Operator.parse(name) for name in PAPER_OPERATORS]
    assert [(op.kernel, op.expansion) for op in parsed] == [
        *((3, 4), (3, 6), (5, 4), (5, 6), (7, 4), (7, 6)),
        (0, 0),
    ]
    assert [op.is_skip for op in parsed] == [False] * 6 + [True]


@pytest.mark.parametrize("name", ["k4e4", "k3", "K3e4", "k3e0", " k3e4", "k03e4", "", None, 3, []])
def test_other_names_are_refused(name):
    with pytest.raises(NeasError, match="k5e6"):
        Operator.parse(name)


@given(st.integers(1, 100_000))
def test_divisible_stays_near_the_value(value):
    result = divisible(value)
    assert result % 8 == 0
    assert result >= max(8, 0.9 * value)
    assert result <= max(8, value + 8)


@pytest.mark.parametrize(
    ("value", "expected"), [(4, 8), (12, 16), (11, 16), (20, 24), (24, 24), (36, 40), (83, 80)]
)
def test_divisible(value, expected):
    assert divisible(value) == expected


def test_widths():
    assert bottleneck_width(24, 6) == 144
    assert squeeze_width(144) == 40  # 36 rounds up: 32 is below 90 %
    assert squeeze_width(16) == 8
