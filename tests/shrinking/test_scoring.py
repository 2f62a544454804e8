"""S, r and determinants against plain NumPy loops, and the property of Eq. 9."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from neas_tf.common.errors import NeasError
from neas_tf.shrinking import diversity as scoring
from neas_tf.shrinking.diversity import (
    combination_scores,
    diversity_scores,
    path_distances,
    similarity_and_quality,
)
from neas_tf.shrinking.measurements import LayerScores, Measurements
from neas_tf.space.search_space import SearchSpace, Stage
from neas_tf.space.shrunk_space import ShrunkSpace

FEW = settings(max_examples=30, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def random_measurements(rng, num, paths, depth, operators, heterogeneous=True, scale=1.0):
    """Z random ensembles, rows of `Architecture.to_array`, with random distances."""
    rows = []
    for _ in range(num):
        split = int(rng.integers(0, depth + 1))
        if heterogeneous:
            columns = np.stack([rng.permutation(operators)[:paths] for _ in range(depth)], axis=1)
        else:
            columns = rng.integers(0, operators, (paths, depth))
        columns[:, :split] = columns[:1, :split]
        rows.append([split, *columns.ravel()])
    distances = rng.gamma(2.0, scale, (num, paths, paths))
    distances = np.triu(distances, 1) + np.triu(distances, 1).transpose(0, 2, 1)
    return Measurements(np.array(rows, np.int32), distances, rng.uniform(size=(num, paths)))


def reference(measurements, operators, beta):
    """Eq. 5 and 7 literally, over ordered pairs of different paths."""
    depth, paths = measurements.num_layers, measurements.num_paths
    total = np.zeros((depth, operators, operators))
    pairs = np.zeros((depth, operators, operators), int)
    quality = [[[] for _ in range(operators)] for _ in range(depth)]
    for z in range(measurements.num_samples):
        split = measurements.architectures[z, 0]
        rows = measurements.architectures[z, 1:].reshape(paths, depth)
        for m in range(depth):
            for o in range(operators):
                found = [measurements.accuracies[z, p] for p in range(paths) if rows[p, m] == o]
                if found:
                    quality[m][o].append(np.mean(found))
            if m + 1 <= split:
                continue
            for p, q in itertools.permutations(range(paths), 2):
                total[m, rows[p, m], rows[q, m]] += np.exp(-beta * measurements.distances[z, p, q])
                pairs[m, rows[p, m], rows[q, m]] += 1
    with np.errstate(invalid="ignore"):
        similarity = total / pairs
    mean = np.array([[np.mean(v) if v else 0.0 for v in row] for row in quality])
    counts = np.array([[len(v) for v in row] for row in quality])
    return similarity, mean, pairs, counts


def kernel_scores(similarity, quality):
    """A one-layer `LayerScores` with everything observed."""
    n = len(quality)
    return LayerScores(
        1.0 - np.asarray(similarity, float)[None],
        np.asarray(quality, float)[None],
        np.ones((1, n, n), np.int64),
        np.ones((1, n), np.int64),
    )


def score(scores, *combinations):
    return combination_scores(scores, np.zeros(len(combinations), int), np.array(combinations))


@FEW
@given(SEEDS, st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_similarity_and_quality_match_loops(seed, paths, depth, heterogeneous):
    rng = np.random.default_rng(seed)
    operators = int(rng.integers(paths, paths + 4))
    measurements = random_measurements(
        rng, int(rng.integers(1, 30)), paths, depth, operators, heterogeneous
    )
    result = similarity_and_quality(measurements, operators, 0.3, gamma=2.0, quality_power=1.5)
    similarity, quality, pairs, counts = reference(measurements, operators, 0.3)
    same = np.arange(operators)
    np.testing.assert_allclose(result.self_similarity, similarity[:, same, same], rtol=1e-12)
    similarity[:, same, same] = 1.0
    pairs[:, same, same] //= 2  # the loops see each unordered pair of equal operators twice
    np.testing.assert_allclose(result.similarity, similarity, rtol=1e-12)
    np.testing.assert_allclose(result.quality, 2.0 * quality**1.5, rtol=1e-12)
    np.testing.assert_array_equal(result.pair_counts, pairs)
    np.testing.assert_array_equal(result.operator_counts, counts)


@FEW
@given(SEEDS, st.sampled_from([1, 2, 3, 4]))
def test_scores_match_numpy_determinants(seed, paths):
    """On valid kernels the score is det(diag(r) S diag(r)) of the submatrix."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(6, 5))
    similarity = np.exp(-np.linalg.norm(points[:, None] - points[None], axis=-1))
    quality = rng.uniform(0.1, 1.0, 6)
    combinations = list(itertools.combinations(range(6), paths))
    expected = []
    for h in combinations:
        kernel = np.diag(quality) @ similarity @ np.diag(quality)
        expected.append(np.linalg.det(kernel[np.ix_(h, h)]))
    result = score(kernel_scores(similarity, quality), *combinations)
    np.testing.assert_allclose(result, expected, rtol=1e-9)


@FEW
@given(SEEDS, st.sampled_from([3, 4]))
def test_indefinite_estimates_are_projected(seed, paths):
    rng = np.random.default_rng(seed)
    raw = rng.uniform(0, 1, (6, 6))
    similarity = (raw + raw.T) / 2
    np.fill_diagonal(similarity, 1.0)
    values, vectors = np.linalg.eigh(similarity)
    projected = vectors @ np.diag(np.maximum(values, 0)) @ vectors.T
    combinations = list(itertools.combinations(range(6), paths))
    expected = [max(np.linalg.det(projected[np.ix_(h, h)]), 0.0) for h in combinations]
    result = score(kernel_scores(similarity, np.ones(6)), *combinations)
    np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)
    assert np.all(result >= 0)


def test_projection_sees_only_operators_in_use():
    """An operator that is dead everywhere has no say in the scores of the others."""
    similarity = np.full((5, 5), 0.2)
    similarity[:, 4] = similarity[4, :] = 0.99  # cannot be: like all, who are unlike each other
    np.fill_diagonal(similarity, 1.0)
    alive = list(itertools.combinations(range(4), 3))
    result = score(kernel_scores(similarity, np.ones(5)), *alive)
    np.testing.assert_allclose(result, np.linalg.det(similarity[:3, :3]), rtol=1e-12)


@pytest.mark.parametrize("paths", [2, 3, 4])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-6])
def test_small_beta_keeps_the_ranking(paths, scale):
    """For β d ≪ 1 the scores follow the distances instead of rounding errors.

    det(S_h) goes with (β·scale)^(K−1) in the limit, so that scaled scores must agree.
    """
    points = np.random.default_rng(0).normal(size=(6, 8))
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    combinations = np.array(list(itertools.combinations(range(6), paths)))

    def scaled(beta):
        scores = kernel_scores(np.ones((6, 6)), np.ones(6))
        scores = LayerScores(
            -np.expm1(-beta * distance)[None],
            scores.quality,
            scores.pair_counts,
            scores.operator_counts,
        )
        return score(scores, *combinations) / beta ** (paths - 1)

    beta = 1e-3 * scale
    np.testing.assert_allclose(scaled(beta), scaled(beta / 2), rtol=20 * beta + 1e-4)
    assert len(set(scaled(beta))) == len(combinations)


@FEW
@given(SEEDS)
def test_eq9_holds_for_two_paths(seed):
    rng = np.random.default_rng(seed)
    near, far = np.sort(rng.uniform(0, 1, 2))[::-1]
    low, high = np.sort(rng.uniform(0.05, 1, 2))
    if near - far < 1e-9 or high - low < 1e-9:
        return
    # Operator 0 is common; 1 is less similar to it and better, 2 is the other.
    similarity = [[1, far, near], [far, 1, 0.5], [near, 0.5, 1]]
    better, worse = score(kernel_scores(similarity, [0.7, high, low]), (0, 1), (0, 2))
    assert better > worse


@FEW
@given(SEEDS, st.sampled_from([3, 4, 5]))
def test_eq9_holds_for_more_paths_under_its_condition(seed, paths):
    """b < b' entry by entry, R⁻¹(b + b') ≥ 0 and S valid ⇒ the score is strictly higher."""
    rng = np.random.default_rng(seed)
    common = paths - 1
    points = rng.normal(size=(common, 4))
    others = np.exp(-np.linalg.norm(points[:, None] - points[None], axis=-1))
    total = others @ rng.uniform(0.05, 1, common)  # b + b'
    gap = total * rng.uniform(0.05, 0.95, common)  # b' − b
    near, far = (total + gap) / 2, (total - gap) / 2
    largest = max(b @ np.linalg.solve(others, b) for b in (near, far))
    shrink = np.sqrt(rng.uniform(0.2, 0.95) / largest)
    near, far = near * shrink, far * shrink
    cross = far @ np.linalg.solve(others, near)
    similarity = np.eye(common + 2)
    similarity[:common, :common] = others
    similarity[:common, common] = similarity[common, :common] = far
    similarity[:common, common + 1] = similarity[common + 1, :common] = near
    similarity[common, common + 1] = similarity[common + 1, common] = cross
    assert np.linalg.eigvalsh(similarity)[0] > -1e-12
    low, high = np.sort(rng.uniform(0.05, 1, 2))
    quality = [*rng.uniform(0.05, 1, common), high, low]
    rest = tuple(range(common))
    better, worse = score(kernel_scores(similarity, quality), (*rest, common), (*rest, common + 1))
    assert better > worse > 0


def test_eq9_needs_its_condition_for_more_paths():
    """The paper states Eq. 9 without a condition; three paths contradict it.

    Operators 0 and 1 are nearly copies. Operator 2 is less similar to both of them than operator
    3 and better, all kernels are positive definite, and still its combination scores lower: being
    unlike one of two copies only is what makes a determinant shrink.
    """
    others = np.array([[1, 0.9], [0.9, 1]])
    far, near = np.array([0.79, 0.6]), np.array([0.8, 0.8])
    similarity = np.eye(4)
    similarity[:2, :2] = others
    similarity[:2, 2] = similarity[2, :2] = far
    similarity[:2, 3] = similarity[3, :2] = near
    similarity[2, 3] = similarity[3, 2] = far @ np.linalg.solve(others, near)
    assert np.all(far < near) and np.linalg.eigvalsh(similarity)[0] > 0
    better, worse = score(kernel_scores(similarity, [0.8, 0.8, 0.701, 0.7]), (0, 1, 2), (0, 1, 3))
    assert better < worse


def test_repeated_operators_use_the_measured_similarity():
    similarity = np.array([[0.5, 0.7], [0.7, 0.6]])  # diagonal: other paths, same operator
    scores = kernel_scores(similarity, [0.5, 1.0])
    result = score(scores, (0, 0), (0, 1), (1, 1))
    expected = [0.0625 * (1 - 0.25), 0.25 * (1 - 0.49), 1 - 0.36]
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    # K = 3: two rows of operator 0, one of operator 1.
    kernel = np.array([[1, 0.5, 0.7], [0.5, 1, 0.7], [0.7, 0.7, 1]])
    expected = [0.5**4 * np.linalg.det(kernel)]
    np.testing.assert_allclose(score(scores, (0, 0, 1)), expected, rtol=1e-12)
    np.testing.assert_array_equal(np.diagonal(scores.similarity[0]), [1, 1])


def test_unobserved_pairs_have_no_score():
    base = kernel_scores(np.full((4, 4), 0.5), np.ones(4))
    pairs, operators = base.pair_counts.copy(), base.operator_counts.copy()
    pairs[0, 0, 1] = pairs[0, 1, 0] = 0
    scores = LayerScores(base.dissimilarity, base.quality, pairs, operators)
    result = score(scores, (0, 1), (0, 2), (2, 3))
    np.testing.assert_array_equal(np.isnan(result), [True, False, False])
    result = score(scores, (0, 1, 2), (0, 2, 3), (1, 2, 3))
    np.testing.assert_array_equal(np.isnan(result), [True, False, False])
    assert np.isnan(scores.similarity[0, 0, 1])


def test_traced_once_for_all_shapes():
    # Other tests of the process may have traced them as well, with other devices or options.
    traces = [
        scoring._estimate.experimental_get_tracing_count,
        scoring._scores.experimental_get_tracing_count,
    ]
    before = [count() for count in traces]
    rng = np.random.default_rng(1)
    for paths, depth, operators, num in [(2, 3, 4, 9), (2, 3, 4, 9), (3, 5, 6, 20), (4, 2, 5, 7)]:
        measurements = random_measurements(rng, num, paths, depth, operators)
        scores = similarity_and_quality(measurements, operators, 1e-3)
        rows = np.array(list(itertools.combinations(range(operators), paths)))
        combination_scores(scores, np.full(len(rows), depth - 1), rows)
    after = [count() for count in traces]
    assert all(b <= a + 1 and b >= 1 for a, b in zip(before, after, strict=True)), (before, after)


def test_repeatable_bit_for_bit():
    measurements = random_measurements(np.random.default_rng(2), 400, 3, 6, 7)
    first = similarity_and_quality(measurements, 7, 1e-3)
    for _ in range(5):
        again = similarity_and_quality(measurements, 7, 1e-3)
        np.testing.assert_array_equal(first.dissimilarity, again.dissimilarity)
        np.testing.assert_array_equal(first.quality, again.quality)


@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16])
def test_path_distances(dtype):
    features = tf.cast(np.random.default_rng(3).normal(size=(3, 5, 2, 2, 4)), dtype)
    values = tf.cast(features, tf.float32).numpy().reshape(3, 5, -1)
    expected = np.linalg.norm(values[:, None] - values[None], axis=-1).mean(axis=-1)
    result = tf.function(path_distances)(features)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, expected, rtol=1e-5)
    np.testing.assert_array_equal(np.diagonal(result), 0)


def test_path_distances_of_nearly_equal_paths():
    base = np.full((1, 4, 50), 100.0, np.float32)
    features = np.concatenate([base, base + 1e-2])
    expected = np.sqrt(50) * (features[1, 0, 0] - features[0, 0, 0])
    np.testing.assert_allclose(path_distances(tf.constant(features))[0, 1], expected, rtol=1e-6)


def test_diversity_scores_follow_the_alive_combinations():
    space = SearchSpace(
        input_size=(8, 8),
        num_classes=4,
        stages=(Stage(8, 2, 2), Stage(16, 3, 2)),
        operators=("k3e4", "k3e6", "k5e4", "skip"),
        min_split=2,
        max_split=5,
    )
    shrunk = ShrunkSpace.full(space, 2).without(4, ("k3e4", "k5e4"))
    scores = similarity_and_quality(
        random_measurements(np.random.default_rng(4), 300, 2, 5, 4), 4, 0.1
    )
    result = diversity_scores(shrunk, scores)
    for layer, (values, rows) in enumerate(zip(result, shrunk.alive, strict=True)):
        assert len(values) == len(rows)
        for value, row in zip(values, rows, strict=True):
            index = [space.operator_index(name) for name in row]
            expected = np.prod(scores.quality[layer][index] ** 2)
            if len(index) == 2:
                expected *= 1 - scores.similarity[layer][index[0], index[1]] ** 2
            np.testing.assert_allclose(value, expected, rtol=1e-9)


def test_measurements_refuse_what_makes_no_sense():
    good = random_measurements(np.random.default_rng(5), 4, 2, 3, 4)
    fields = {
        "architectures": good.architectures,
        "distances": good.distances,
        "accuracies": good.accuracies,
    }
    bad = {
        "distances": [good.distances[:3], good.distances * np.nan, -good.distances],
        "accuracies": [good.accuracies + 1.5, good.accuracies[:, 0], np.zeros((0, 2))],
        "architectures": [good.architectures[:, :-1], good.architectures - 100.5],
    }
    for field, values in bad.items():
        for value in values:
            with pytest.raises(NeasError, match="measurements"):
                Measurements(**{**fields, field: value})
    with pytest.raises(NeasError, match="operator indices < 2"):
        similarity_and_quality(good, 2, 1e-3)


def test_beta_and_quantiles_leave_shared_ensembles_out():
    architectures = np.array([[1, 0, 0, 0, 1], [2, 0, 0, 0, 0]], np.int32)  # d = 2, K = 2
    distances = np.array([[[0, 4.0], [4.0, 0]], [[0, 0.0], [0.0, 0]]])
    measurements = Measurements(architectures, distances, np.full((2, 2), 0.5))
    assert measurements.resolve_beta("auto") == 0.25
    assert measurements.resolve_beta(0.1) == 0.1
    assert measurements.distance_quantiles()["min"] == 4.0
    shared = Measurements(architectures[1:], distances[1:], np.full((1, 2), 0.5))
    assert shared.resolve_beta("auto") == 1e-3
    assert shared.distance_quantiles()["median"] is None
