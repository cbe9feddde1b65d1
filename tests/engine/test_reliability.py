"""Groups of answers by the chance that was said before."""

from itertools import pairwise

import numpy as np
import pytest

from app.engine.reliability import group_chances


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
