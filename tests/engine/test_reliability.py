"""Groups of answers by the chance that was said before."""

from itertools import pairwise

import numpy as np
import pytest

from app.engine.reliability import EXACT, group_chances, sum_chances, too_many_miss


def test_groups_hold_every_sure_answer_once_in_order_of_their_chance():
    chances = np.tile([0.9, 0.1, 0.5], 16)
    values = np.tile(np.array([1, -1, 0], np.int8), 16)
    groups = group_chances(chances, values)
    assert [(one.predicted, one.yes, one.answered) for one in groups] == [
        (pytest.approx(0.1), 0, 16),
        (pytest.approx(0.9), 16, 16),
    ]
    # 0 of 16 leaves up to 1 - 0.05 ** (1 / 16) at 90 %, two-sided
    assert groups[0].share_low == 0
    assert groups[0].share_high == pytest.approx(1 - 0.05 ** (1 / 16))
    assert groups[1].share_low == pytest.approx(0.05 ** (1 / 16))


def test_few_answers_are_one_group_and_none_is_no_group():
    (one,) = group_chances(np.array([0.2, 0.6]), np.array([1, -1], np.int8))
    assert (one.low, one.high, one.predicted) == (0.2, 0.6, pytest.approx(0.4))
    assert (one.yes, one.answered) == (1, 2)
    assert group_chances(np.array([0.4]), np.array([0], np.int8)) == []


def test_at_most_eight_groups_of_much_the_same_size():
    rng = np.random.default_rng(0)
    groups = group_chances(rng.random(1_003), np.ones(1_003, np.int8))
    assert [one.answered for one in groups] == [126] * 3 + [125] * 5
    assert all(one.high <= other.low for one, other in pairwise(groups))


# Twelve answers in each of seven groups: the mean chance said before, and how many were yes. Every
# group is within its own 90 % interval, and all of them are below what they promised.
PROMISED = [0.13, 0.185, 0.22, 0.28, 0.335, 0.39, 0.59]
CAME = [0, 0, 0, 1, 3, 2, 6]


def spell_out(yes_of_groups):
    chances = np.repeat(PROMISED, 12)
    values = np.concatenate([np.repeat([1, -1], [yes, 12 - yes]) for yes in yes_of_groups])
    return chances, values.astype(np.int8)


def test_promises_that_all_fall_a_little_short_are_broken_together():
    chances, values = spell_out(CAME)
    groups = group_chances(chances, values)
    off = sum(not one.share_low <= one.predicted <= one.share_high for one in groups)
    assert off == 0
    total = sum_chances(chances, values)
    assert (total.promised, total.yes, total.answered) == (pytest.approx(25.56), 12, 84)
    assert total.promises_too_much
    # 25.56 and twice the root of 16.1, the sum of p (1 - p); P(X <= 17) = 0.0195
    assert (total.low, total.high) == (18, 34)


def test_promises_that_are_kept_or_surpassed():
    kept = sum_chances(*spell_out([2, 2, 3, 3, 4, 4, 7]))
    assert kept.yes == 25
    assert not kept.promises_too_much and not kept.promises_too_little
    more = sum_chances(*spell_out([4, 4, 5, 5, 6, 6, 8]))
    assert more.yes == 38
    assert more.promises_too_little and not more.promises_too_much


def test_range_of_yes_is_that_of_a_binomial_where_all_chances_are_the_same():
    values = np.array([1, 0, -1] * 10 + [-1], np.int8)
    total = sum_chances(np.full(31, 0.3), values)
    assert total.answered == 21  # unsure ones are none
    # P(X <= 1) = 0.0056, P(X <= 2) = 0.0271; P(X > 10) = 0.0264, P(X > 11) = 0.0087
    assert (total.low, total.high) == (2, 11)


def test_many_answers_are_judged_as_few_are():
    rng = np.random.default_rng(0)
    chances = rng.random(EXACT)
    values = np.where(rng.random(EXACT) < chances, 1, -1).astype(np.int8)
    exact = sum_chances(chances, values)
    rough = sum_chances(np.append(chances, 0.0), np.append(values, np.int8(-1)))
    assert abs(exact.low - rough.low) <= 1 and abs(exact.high - rough.high) <= 1
    assert sum_chances(np.zeros(EXACT + 1), np.full(EXACT + 1, -1, np.int8)).high == 0


@pytest.mark.parametrize(
    ("missing", "groups", "too_many"),
    [(0, 8, False), (2, 8, False), (3, 8, True), (2, 5, False), (3, 5, True), (1, 1, False)],
)
def test_groups_may_miss_as_often_as_chance_has_it(missing, groups, too_many):
    # P(X >= 2) of 8 at 0.1 is 0.187, P(X >= 3) 0.038; of 5 they are 0.081 and 0.009
    assert too_many_miss(missing, groups) == too_many
