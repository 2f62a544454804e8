"""Scoring is pure: the order, the company and the repetition of candidates change no bit."""

from __future__ import annotations

import numpy as np
import pytest
from mixed_space import MIXED
from tiny_training import SPACE, draw, shaken

from neas_tf.search.evaluation import CandidateEvaluator
from neas_tf.space.sampling import uniform
from neas_tf.space.shrunk_space import ShrunkSpace
from neas_tf.supernet.model import Supernet


def bits(model) -> list[bytes]:
    """Every variable of the supernet, BN's moving statistics and counters included."""
    return [variable.numpy().tobytes() for variable in model.variables]


@pytest.fixture(
    scope="module", params=[(SPACE, 1), (SPACE, 2), (MIXED, 2)], ids=lambda p: f"{p[0].name}-{p[1]}"
)
def measured(request):
    """(supernet, evaluator, its arguments, candidates, their scores each alone)."""
    space, num_paths = request.param
    model, size = shaken(Supernet(space, num_paths, seed=4, name="supernet")), space.input_size[0]
    shrunk, rng = ShrunkSpace.full(space, num_paths, heterogeneous=False), np.random.default_rng(3)
    found = {a.key: a for a in (uniform(shrunk, rng) for _ in range(40))}
    candidates = list(found.values())[:7]
    arguments = (model, draw(20, 3, size)[0], *draw(60, 4, size), 8, 16)
    evaluator = CandidateEvaluator(*arguments)
    return model, evaluator, arguments, candidates, [evaluator.evaluate(a) for a in candidates]


def test_any_order_and_company(measured):
    """In random groups and orders, repeated, between other looks and logits: the same to the bit."""
    model, evaluator, _, candidates, alone = measured
    before, rng = bits(model), np.random.default_rng(1)
    logits = evaluator.logits(candidates[0])
    for turn in range(6):
        chosen = rng.permutation(len(candidates))[: rng.integers(1, len(candidates) + 1)]
        group = [candidates[i] for i in chosen]
        assert evaluator.evaluate_all(group) == [alone[i] for i in chosen]
        if turn % 2:
            size = model.space.input_size[0]
            look = evaluator.another_look(draw(20, turn, size)[0], *draw(60, turn + 1, size))
            look.evaluate_all(candidates)
        assert evaluator.logits(candidates[0]).tobytes() == logits.tobytes()
    assert evaluator.evaluate_all([candidates[1]] * 3) == [alone[1]] * 3
    assert bits(model) == before


def test_which_images_are_right_does_not_depend_on_the_company(measured):
    """More than the accuracy: the answer on every single image, of every path."""
    _, evaluator, _, candidates, _ = measured
    together = evaluator.correct(candidates)
    for row, candidate in zip(together, candidates, strict=True):
        np.testing.assert_array_equal(row, evaluator.correct([candidate])[0])


def test_a_new_evaluator_scores_alike(measured):
    """Nothing is left behind in one, and nothing is needed from one."""
    model, _, arguments, candidates, alone = measured
    before = bits(model)
    assert CandidateEvaluator(*arguments).evaluate_all(candidates[::-1]) == alone[::-1]
    assert bits(model) == before


def test_the_comparison_can_fail(measured):
    """Another weight gives another score: the equalities above are no accident of rounding."""
    model, _, arguments, candidates, alone = measured
    variable = next(v for v in model.trainable_variables if len(v.shape) == 1)
    value = variable.numpy()
    try:
        variable.assign(value * 3 + 1)
        assert CandidateEvaluator(*arguments).evaluate_all(candidates) != alone
    finally:
        variable.assign(value)
