"""The map of a target's looks and its gaps, on arrays whose answers are known."""

from itertools import pairwise

import numpy as np
import pytest

from app.engine.looks import find_gaps, lay_out


def unit(angles):
    """Unit vectors in a plane, by degrees."""
    radians = np.radians(np.asarray(angles, float))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


POSITIVES = unit([0, 5, 10])  # the radius is that of 5 degrees


def test_gap_is_a_group_that_no_positive_is_near():
    candidates = unit([2, 90, 93, 94, 200, 201, 300])
    chances = np.array([0.9, 0.5, 0.6, 0.7, 0.9, 0.8, 1.0])
    first, second = find_gaps(POSITIVES, candidates, chances, limit=6)
    assert (first.medoid, first.members.tolist()) == (1, [1, 2, 3])  # the first of equal sums
    assert first.expected == pytest.approx(1.8)
    assert (second.medoid, second.members.tolist()) == (4, [4, 5])
    assert second.expected == pytest.approx(1.7)


def test_gaps_are_those_with_most_to_expect_not_with_most_images():
    candidates = unit([90, 91, 92, 200, 201])
    chances = np.array([0.1, 0.1, 0.1, 0.9, 0.9])
    gaps = find_gaps(POSITIVES, candidates, chances, limit=1)
    assert [gap.members.tolist() for gap in gaps] == [[3, 4]]


def test_no_candidates_and_no_far_ones_have_no_gap():
    assert find_gaps(POSITIVES, unit([]).reshape(0, 2), np.empty(0), limit=3) == []
    assert find_gaps(POSITIVES, unit([3, 4]), np.ones(2), limit=3) == []


def test_gaps_of_permuted_candidates_hold_the_same_images():
    rng = np.random.default_rng(3)
    angles, chances = rng.uniform(30, 330, 60), rng.uniform(0.2, 1, 60)
    order = rng.permutation(60)
    one = find_gaps(POSITIVES, unit(angles), chances, limit=4)
    other = find_gaps(POSITIVES, unit(angles[order]), chances[order], limit=4)
    assert [set(gap.members.tolist()) for gap in one] == [
        set(order[gap.members].tolist()) for gap in other
    ]


def test_map_keeps_distances_of_what_lies_in_a_plane():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(9, 2)) * [3, 1]
    vectors = np.concatenate([plane, np.ones((9, 1)), np.zeros((9, 5))], axis=1)
    found, others = lay_out(vectors[:6], vectors[6:])
    places = np.concatenate([found, others])
    wanted = np.linalg.norm(plane[:, None] - plane, axis=2)
    assert np.linalg.norm(places[:, None] - places, axis=2) == pytest.approx(wanted, abs=1e-6)


def test_map_stays_from_round_to_round():
    """Axes change at 8 and 16 finds only, and are turned to fit those of before."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(40, 16)) * ([4, 2] + [0.2] * 14)
    places = [lay_out(vectors[:count], vectors[count:]) for count in range(4, 20)]
    for one, later in pairwise(places):
        before, now = np.concatenate(one), np.concatenate(later)
        if len(later[0]) in (8, 16):
            assert np.abs(now - before).max() < 1.5  # of 16 across
        else:
            assert now == pytest.approx(before)


def test_map_needs_four_finds():
    with pytest.raises(ValueError, match="at least 4"):
        lay_out(unit([0, 1, 2]), unit([3]))


def test_same_frame_again_and_again_has_no_map_until_something_differs():
    def place(angles):
        return np.pad(unit(angles), ((0, 0), (0, 2)))

    same = np.repeat(place([30]), 9, axis=0)
    rounding = np.random.default_rng(0).normal(scale=1e-7, size=same.shape)
    for frames in (same, same + rounding):
        assert lay_out(frames, place([0, 90])) is None
        found, others = lay_out(np.concatenate([frames[:5], place([60, 61, 90])]), place([30]))
        assert others[0] == pytest.approx(found[0], abs=1e-5)
        assert np.linalg.norm(found[0] - found[7]) == pytest.approx(1, abs=1e-5)
    found, _ = lay_out(np.concatenate([same[:3], place([120])]), place([0]))
    assert np.linalg.norm(found[0] - found[3]) == pytest.approx(np.sqrt(2), abs=1e-5)
