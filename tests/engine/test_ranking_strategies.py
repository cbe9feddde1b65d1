"""The strategies that rank by one number: exact rows on scores written down by hand."""

import numpy as np
import pytest

from app.engine.answers import Answers, Opening
from app.engine.head import Head
from app.engine.strategies import ranking
from app.engine.strategies.round_state import RoundState, smallest

SCORES = [0.5, -0.1, 0.2, -3.0, 2.0, -0.1, 0.0, 0.2, 9.9, -0.3]
#           0     1    2     3    4     5    6    7    8     9
ANSWERED = {8: 1, 3: -1}


@pytest.fixture(scope="module")
def make_state(make_index):
    angles = np.linspace(0, 3, len(SCORES))
    index = make_index(np.stack([np.cos(angles), np.sin(angles)], axis=1))

    def make(size, scores=SCORES, answered=ANSWERED, examples=0, seed=0):
        rows = np.array(sorted(answered), np.int64)
        return RoundState(
            index=index,
            answers=Answers(rows, np.array([answered[row] for row in rows], np.int8)),
            opening=Opening(index.vectors[4], index.vectors[:examples]),
            unanswered=np.setdiff1d(np.arange(len(SCORES)), rows),
            head=Head(np.zeros(2, np.float32), 0.0),
            scores=np.array(scores, np.float32),
            size=size,
            rng=np.random.default_rng(seed),
        )

    return make


def test_pf_ma_takes_positives_nearest_the_line_then_negatives_nearest_it(make_state):
    choice = ranking.pf_ma(make_state(8))
    assert choice.rows.tolist() == [6, 2, 7, 0, 4, 1, 5, 9]
    assert set(choice.reasons) == {"close-to-line"}
    assert len(choice.reasons) == 8


def test_pf_ma_stops_within_the_positives(make_state):
    assert ranking.pf_ma(make_state(2)).rows.tolist() == [6, 2]


def test_pf_ma_without_predicted_positives_goes_up_to_the_line(make_state):
    state = make_state(3, scores=[-5, -1, -4, -9, -2, -3, -8, -6, -7, -1])
    assert ranking.pf_ma(state).rows.tolist() == [1, 9, 4]


def test_most_ambiguous_looks_on_both_sides(make_state):
    assert ranking.most_ambiguous(make_state(6)).rows.tolist() == [6, 1, 5, 2, 7, 9]


def test_most_positive_takes_the_highest(make_state):
    choice = ranking.most_positive(make_state(4))
    assert choice.rows.tolist() == [4, 0, 2, 7]
    assert set(choice.reasons) == {"likely"}


def test_opening_only_ignores_scores(make_state):
    choice = ranking.opening_only(make_state(2, answered={8: 1, 3: -1, 5: -1}))
    assert choice.rows.tolist()[0] == 4  # it was opened with row 4; rows 3 and 5 are answered
    assert set(choice.rows.tolist()) < {4, 2, 6}
    assert set(choice.reasons) == {"opening"}


@pytest.mark.parametrize(
    ("answered", "examples", "expected"),
    [
        ({8: 1, 3: -1}, 0, [6, 1]),  # as many yes as no: ambiguous
        ({8: 1, 3: -1, 9: -1}, 0, [4, 0]),  # fewer yes: positive
        ({8: 1, 3: -1, 9: -1}, 1, [6, 1]),  # an uploaded example is a yes
        ({8: 1, 3: -1, 9: 0}, 0, [6, 1]),  # unsure counts for neither
    ],
)
def test_adaptive_switches_on_the_balance_of_answers(make_state, answered, examples, expected):
    state = make_state(2, answered=answered, examples=examples)
    assert ranking.adaptive(state).rows.tolist() == expected


def test_random_draws_every_unanswered_row_alike(make_state):
    counts = np.zeros(10)
    for seed in range(400):
        counts[ranking.random(make_state(2, seed=seed)).rows] += 1
    assert counts[[3, 8]].tolist() == [0, 0]
    # 100 expected each, standard deviation 8.7.
    assert (np.abs(counts[[0, 1, 2, 4, 5, 6, 7, 9]] - 100) < 40).all()
    again = ranking.random(make_state(5, seed=3)).rows
    assert again.tolist() == ranking.random(make_state(5, seed=3)).rows.tolist()


@pytest.mark.parametrize("k", [0, 1, 3, 7, 8, 20])
def test_smallest_is_a_stable_sort_cut_off(k):
    keys = np.array([3.0, 1.0, 2.0, 1.0, 2.0, 2.0, -5.0])
    assert smallest(keys, k).tolist() == np.argsort(keys, kind="stable")[:k].tolist()
