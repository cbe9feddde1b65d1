"""How many yes the next round will bring."""

from itertools import product

import numpy as np
import pytest
from scipy.special import expit, logit

from app.engine.answers import Value
from app.engine.forecast import count_yes, forecast_yes

YES, NO, UNSURE = Value.YES, Value.NO, Value.UNSURE


def forecast(scores, shown, values, ago):
    return forecast_yes(
        np.array(scores),
        shown_scores=np.array(shown),
        values=np.array(values, np.int8),
        rounds_ago=np.array(ago),
    )


def test_nothing_is_forecast_before_an_answer_to_a_head():
    assert forecast([0.0], [], [], []) is None
    assert forecast([0.0], [1.0], [UNSURE], [1]) is None


def test_expected_yes_are_those_of_scores_moved_by_what_the_latest_answers_say():
    """The shift is where surplus of promises and pull of the prior cancel: found by a fine grid."""
    shown, values, ago = [2.0, 1.0, 0.0, -1.0], [YES, NO, NO, NO], [1, 1, 2, 4]
    weights = 0.5 ** ((np.array(ago) - 1) / 1.5)
    grid = np.linspace(-3, 1, 400_001)
    promised = expit(np.array(shown)[:, None] + grid)
    pull = weights @ (promised - (np.array(values) == YES)[:, None]) + 2 * (grid + 1)
    shift = grid[np.argmin(np.abs(pull))]
    told = forecast([0.5, -0.5, 3.0], shown, values, ago)
    assert told.value == pytest.approx(expit(np.array([0.5, -0.5, 3.0]) + shift).sum(), abs=1e-4)
    assert 0 <= told.low <= told.value <= told.high <= 3


def test_unsure_answers_change_nothing():
    assert forecast([0.0] * 5, [1.0, 0.5], [YES, UNSURE], [1, 1]) == forecast(
        [0.0] * 5, [1.0], [YES], [1]
    )


def test_latest_rounds_count_most():
    shown, ago = [0.0] * 40, [1] * 20 + [4] * 20
    rising = forecast([0.0] * 10, shown, [YES] * 20 + [NO] * 20, ago)
    falling = forecast([0.0] * 10, shown, [NO] * 20 + [YES] * 20, ago)
    assert rising.value > 6
    assert falling.value < 4


def test_images_of_a_round_are_likelier_than_scores_say_where_rounds_before_were():
    """Half of those with a score of -3 were yes, so half of the next ones are expected."""
    shown = [-3.0] * 400
    told = forecast([-3.0] * 10, shown, [YES, NO] * 200, [1] * 400)
    assert told.value == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("true_shift", [-2.0, -0.5])
def test_nine_rounds_of_ten_are_inside(true_shift):
    """Yes drawn by chances that a shift of their own makes, some 0.7 off from round to round."""
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(400):
        scores = rng.normal(0, 1, (4, 10))
        shifts = true_shift + rng.normal(0, 0.7, (4, 1))
        is_yes = rng.random((4, 10)) < expit(scores + shifts)
        told = forecast(
            scores[3],
            scores[:3].ravel(),
            np.where(is_yes[:3], YES, NO).ravel(),
            np.repeat([3, 2, 1], 10),
        )
        inside.append(told.low <= is_yes[3].sum() <= told.high)
    assert 0.87 <= np.mean(inside) <= 0.99


def test_an_interval_is_narrow_where_scores_leave_no_doubt():
    shown = [8.0] * 50 + [-8.0] * 50
    told = forecast([8.0] * 4 + [-8.0] * 6, shown, [YES] * 50 + [NO] * 50, [1] * 100)
    assert (told.low, told.high) == (3, 4)
    assert told.value == pytest.approx(4, abs=0.05)


def test_yes_are_counted_as_by_going_through_all_outcomes():
    chances = np.array([0.2, 0.7, 0.55])
    by_hand = np.zeros(4)
    for outcome in product([0, 1], repeat=3):
        by_hand[sum(outcome)] += np.prod(np.where(outcome, chances, 1 - chances))
    counts = count_yes(np.stack([chances, expit(-logit(chances))]))
    assert counts[0] == pytest.approx(by_hand)
    assert counts[1] == pytest.approx(by_hand[::-1])


def test_no_image_next_is_no_yes():
    told = forecast([], [0.0], [YES], [1])
    assert (told.value, told.low, told.high) == (0, 0, 0)
