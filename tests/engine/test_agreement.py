"""Agreement against numbers worked out by hand; advice on cases whose order is plain."""

import numpy as np
import pytest

from app.engine.agreement import guess_unseen, measure_agreement, weigh_answers


def pairs(both_yes: int, yes_no: int, no_yes: int, both_no: int, unsure: int = 0):
    first = [1] * (both_yes + yes_no) + [-1] * (no_yes + both_no) + [0] * unsure
    second = [1] * both_yes + [-1] * yes_no + [1] * no_yes + [-1] * both_no + [1] * unsure
    return np.array(first, np.int8), np.array(second, np.int8)


@pytest.mark.parametrize(
    ("counts", "raw", "kappa", "ac1"),
    [
        # By hand: 35 of 50 equal; by chance .5 * .6 + .5 * .4 = .5, and 2 * .55 * .45 = .495.
        ((20, 5, 10, 15), 0.7, 0.4, (0.7 - 0.495) / 0.505),
        # Nearly all yes: kappa is below zero though 118 of 125 are equal; AC1 is not misled.
        ((118, 5, 2, 0), 0.944, (0.944 - 0.94528) / 0.05472, (0.944 - 0.054432) / 0.945568),
        ((3, 0, 0, 4), 1.0, 1.0, 1.0),
        ((0, 3, 3, 0), 0.0, -1.0, -1.0),
        ((5, 0, 0, 0), 1.0, None, 1.0),
        ((0, 0, 0, 5), 1.0, None, 1.0),
        ((0, 4, 0, 0), 0.0, 0.0, -1.0),  # one said yes to all, the other no: that is no chance
        ((0, 0, 0, 0), None, None, None),
    ],
)
def test_agreement_as_by_hand(counts, raw, kappa, ac1):
    measured = measure_agreement(*pairs(*counts, unsure=3))
    assert (measured.both_yes, measured.yes_no, measured.no_yes, measured.both_no) == counts
    assert measured.unsure == 3
    for value, right in ((measured.raw, raw), (measured.kappa, kappa), (measured.ac1, ac1)):
        assert value == (None if right is None else pytest.approx(right, abs=1e-9))


def test_unsure_of_either_is_neither_agreement_nor_conflict():
    first, second = np.array([0, 1, 1], np.int8), np.array([-1, 0, 1], np.int8)
    measured = measure_agreement(first, second)
    assert (measured.compared, measured.unsure, measured.raw) == (1, 2, 1.0)


def test_certainty_as_by_hand():
    # Half yes: wrong at most .5. People .9: weight .8. The head is right on 3 of 4: .5, times
    # the root of 1.25 answers an image.
    chances = np.array([0.9, 0.2, 0.4, 0.1], np.float32)
    yes, no = np.array([1, 0, 2, 0]), np.array([0, 1, 0, 1])
    model = 0.5 * 1.25**0.5
    right = [
        (model * 0.9 + 0.8 * 0.9 + 0.4) / (model + 0.8 + 0.8),
        (model * 0.8 + 0.8 * 0.9 + 0.4) / (model + 0.8 + 0.8),
        (model * 0.4 + 1.6 * 0.9 + 0.4) / (model + 1.6 + 0.8),
        (model * 0.9 + 0.8 * 0.9 + 0.4) / (model + 0.8 + 0.8),
    ]
    assert weigh_answers(chances, yes, no, agreement=0.9) == pytest.approx(right, abs=1e-6)


def test_the_answer_that_the_head_contradicts_is_worth_a_second_one_most():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 8)) + np.repeat([[3.0], [-3.0]], 30, axis=0)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    values = np.repeat([1, -1], 30).astype(np.int8)
    values[7] = -1  # a slip
    chances = guess_unseen(vectors, values, rng=np.random.default_rng(1))
    assert chances is not None
    assert chances[7] > 0.5
    sure = weigh_answers(chances, (values == 1) * 1, (values == -1) * 1, agreement=0.9)
    assert int(np.argmin(sure)) == 7
    # A second, equal answer makes any image surer than one alone.
    twice = weigh_answers(chances, (values == 1) * 2, (values == -1) * 2, agreement=0.9)
    assert twice[0] > sure[0]


def test_guessing_needs_two_of_each_kind():
    vectors = np.eye(5, dtype=np.float32)
    values = np.array([1, -1, -1, -1, -1], np.int8)
    assert guess_unseen(vectors, values, rng=np.random.default_rng(0)) is None
