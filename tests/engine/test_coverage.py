"""Coverage with known labels: definitions by a naive loop, the ends of the scale, monotone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.coverage import (
    CHUNK_ROWS,
    LIKELIEST,
    TAIL,
    choose_candidates,
    class_radius,
    coverage,
    estimate_coverage,
    find_modes,
    mode_coverage,
)


def unit_rows(n: int, d: int = 5, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def circle(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_radius_is_the_median_similarity_to_the_nearest_classmate():
    # Nearest classmates at 10, 10, 30, 50 and 50 degrees.
    radius = class_radius(circle(0, 10, 40, 90, 140))
    np.testing.assert_allclose(radius, np.cos(np.radians(30)), rtol=1e-5)


def test_radius_goes_to_a_farther_classmate_in_a_large_class():
    targets = unit_rows(60)
    ordered = np.sort(targets @ targets.T, axis=1)[:, ::-1]
    np.testing.assert_allclose(class_radius(targets), np.median(ordered[:, 3]), rtol=1e-5)


def test_radius_is_the_same_in_chunks():
    targets = unit_rows(CHUNK_ROWS + 50, d=3)
    ordered = np.sort(targets @ targets.T, axis=1)[:, ::-1]
    k = round(0.05 * len(targets))
    np.testing.assert_allclose(class_radius(targets), np.median(ordered[:, k]), rtol=1e-4)


def test_one_image_alone_is_covered_only_by_itself():
    only = circle(20)
    assert class_radius(only) == 1.0
    assert coverage(only, np.array([True]), 1.0) == 1.0
    assert coverage(only, np.array([False]), 1.0) == 0.0


def test_coverage_counts_images_within_the_radius_of_one_found():
    targets = circle(0, 10, 40, 90, 140)
    radius = float(np.cos(np.radians(35)))
    assert coverage(targets, np.array([1, 0, 0, 0, 0], bool), radius) == 2 / 5
    assert coverage(targets, np.array([0, 1, 0, 0, 0], bool), radius) == 3 / 5
    assert coverage(targets, np.array([0, 1, 0, 1, 0], bool), radius) == 4 / 5


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(0, 10**6), st.data())
def test_coverage_is_0_then_grows_then_1(n, seed, data):
    targets = unit_rows(n, seed=seed)
    radius = class_radius(targets)
    order = data.draw(st.permutations(range(n)))
    values = [coverage(targets, np.isin(np.arange(n), order[:i]), radius) for i in range(n + 1)]
    assert values[0] == 0
    assert values[-1] == 1
    assert (np.diff(values) >= 0).all()


def test_duplicates_cover_each_other():
    targets = np.repeat(unit_rows(1, d=7), 6, axis=0)
    assert coverage(targets, np.arange(6) == 2, class_radius(targets)) == 1.0


def test_modes_are_the_looks_of_the_target():
    looks = np.repeat(np.eye(3, 8, dtype=np.float32), 5, axis=0) + unit_rows(15, 8) / 20
    modes = find_modes(looks / np.linalg.norm(looks, axis=1, keepdims=True))
    assert len(np.unique(modes)) == 3
    assert [len(np.unique(modes[i : i + 5])) for i in (0, 5, 10)] == [1, 1, 1]
    assert mode_coverage(modes, np.isin(np.arange(15), [0, 1, 2])) == 1 / 3
    assert mode_coverage(modes, np.isin(np.arange(15), [0, 14])) == 2 / 3
    assert mode_coverage(modes, np.zeros(15, bool)) == 0


def test_number_of_modes_grows_with_the_target_up_to_ten():
    counts = [len(np.unique(find_modes(unit_rows(n)))) for n in (1, 5, 6, 46, 120)]
    assert counts == [1, 1, 2, 10, 10]
    assert len(np.unique(find_modes(np.repeat(unit_rows(2), 10, axis=0)))) == 2


def test_estimate_weighs_likely_images_by_their_chance():
    positives = circle(0, 10, 20)  # radius: cosine of 10 degrees
    candidates = circle(5, 29, 31, 90)
    chances = np.array([0.5, 1.0, 0.75, 0.25])

    estimate = estimate_coverage(
        positives, candidates, chances, weights=np.ones(4, int), rng=np.random.default_rng(0)
    )

    np.testing.assert_allclose(estimate.coverage, (3 + 1.5) / (3 + 2.5))
    assert estimate.target_count == 5.5
    # By the draw between 3 + 1 (+ 1) of 4 + 0..3: from 4/6 to 5/5.
    assert estimate.low == 4 / 6
    assert estimate.high == 1.0


def test_estimate_is_the_truth_where_chances_are_certain():
    targets = unit_rows(40)
    found = np.arange(40) < 15
    certain = np.ones(25)

    estimate = estimate_coverage(
        targets[found],
        targets[~found],
        certain,
        weights=np.ones(25, int),
        rng=np.random.default_rng(0),
    )

    truth = coverage(targets, found, class_radius(targets[found]))
    np.testing.assert_allclose([estimate.coverage, estimate.low, estimate.high], truth)
    assert estimate.target_count == 40


def test_estimate_doubts_the_chances_where_versions_differ():
    targets = unit_rows(60)
    found = np.arange(60) < 20
    sure = np.full(40, 0.5)
    versions = np.repeat([[0.1], [0.9]], 40, axis=1)

    def say(chances):
        rng = np.random.default_rng(0)
        ones = np.ones(40, int)
        return estimate_coverage(targets[found], targets[~found], chances, weights=ones, rng=rng)

    one, several = say(sure), say(versions)
    assert several.target_count == one.target_count == 40
    np.testing.assert_allclose(several.coverage, one.coverage)
    assert several.low < one.low < one.high < several.high
    np.testing.assert_allclose(say(sure[None]).low, one.low)


def test_estimate_without_candidates_is_full():
    estimate = estimate_coverage(
        unit_rows(2),
        unit_rows(0),
        np.empty(0),
        weights=np.empty(0, int),
        rng=np.random.default_rng(0),
    )
    assert (estimate.coverage, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_estimate_with_a_part_of_the_unlikely_is_that_with_all_of_them():
    """A target of thousands of images, most of them far below the likeliest."""
    rng = np.random.default_rng(3)
    scores = np.sort(rng.normal(-1, 1, 12_000))[::-1]
    scores = scores[rng.permutation(12_000)]
    angles = np.where(rng.random(12_000) < 1 / (1 + np.exp(-3 * (scores - 1))), 5, 120)
    candidates = circle(*(angles + rng.normal(0, 2, 12_000)))
    positives = circle(0, 4, 8, 10)
    chances = 1 / (1 + np.exp(-scores))

    def say(places, weights):
        return estimate_coverage(
            positives,
            candidates[places],
            chances[places],
            weights=weights,
            rng=np.random.default_rng(0),
        )

    every = say(np.arange(12_000), np.ones(12_000, int))
    chosen = choose_candidates(scores)
    some = say(chosen.places, chosen.weights)
    np.testing.assert_allclose(
        [some.coverage, some.low, some.high], [every.coverage, every.low, every.high], atol=0.03
    )
    np.testing.assert_allclose(some.target_count, every.target_count, rtol=0.01)
    likeliest = np.argsort(-scores)[:2_000]
    assert say(likeliest, np.ones(2_000, int)).low > 1.5 * every.high


def test_candidates_are_the_likeliest_and_a_part_of_all_others():
    scores = np.random.default_rng(0).permutation(10_000).astype(float)
    chosen = choose_candidates(scores)
    likeliest, others = np.split(scores[chosen.places], [LIKELIEST])
    assert likeliest.tolist() == list(range(9_999, 9_999 - LIKELIEST, -1))
    assert len(others) == TAIL
    assert chosen.weights.sum() == 10_000
    assert set(chosen.weights[:LIKELIEST].tolist()) == {1}
    assert (np.diff(others) == -36).all()  # 9,000 others, 36 for each of 250
    assert others[0] == 10_000 - LIKELIEST - 19  # the middle of its 36

    few = choose_candidates(np.zeros(LIKELIEST + TAIL))
    assert few.places.tolist() == list(range(LIKELIEST + TAIL))
    assert (few.weights == 1).all()
    assert len(choose_candidates(np.empty(0)).places) == 0
    odd = choose_candidates(np.zeros(LIKELIEST + TAIL + 1))
    assert odd.weights.sum() == LIKELIEST + TAIL + 1 == 1 + len(odd.places)
    assert len(np.unique(odd.places)) == len(odd.places)
