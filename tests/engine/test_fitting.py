"""Which unanswered images train a head as negatives, and how many."""

import numpy as np
import pytest

from app.engine.head import find_line, fit_head
from app.engine.strategies.fitting import (
    draw_unlike,
    fit_on_answers,
    fit_on_roots,
    fit_on_tight_budget,
    fit_steadied,
    fit_with_pseudo_negatives,
    take_roots,
)
from app.engine.strategies.round_state import Lesson


@pytest.fixture(scope="module")
def index(make_index):
    return make_index(np.random.default_rng(1).standard_normal((1500, 6)))


def lesson_of(index, positives, negatives, seed=0):
    answered = [*positives, *negatives]
    return Lesson(
        index=index,
        positives=index.vectors[positives],
        negatives=index.vectors[negatives],
        unanswered=np.setdiff1d(np.arange(index.count), answered),
        rng=np.random.default_rng(seed),
    )


def naive_head(index, positives, negatives, wanted, C=10.0, seed=0):
    """Draw twice as many, keep the half that is least like the positives' mean."""
    unanswered = np.setdiff1d(np.arange(index.count), [*positives, *negatives])
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(unanswered, min(2 * wanted, len(unanswered)), replace=False))
    similarities = index.vectors[drawn] @ index.vectors[positives].mean(axis=0)
    kept = sorted(drawn, key=dict(zip(drawn, similarities, strict=True)).get)[: -(-len(drawn) // 2)]
    return fit_head(
        index.vectors[positives],
        index.vectors[negatives],
        pseudo_negatives=index.vectors[kept],
        centre=index.mean,
        C=C,
    )


def assert_same(head, expected):
    np.testing.assert_allclose(head.weights, expected.weights, rtol=1e-4, atol=1e-4)
    assert head.bias == pytest.approx(expected.bias, abs=1e-3)


@pytest.mark.parametrize(
    ("fit", "negatives", "wanted", "C"),
    [
        (fit_on_answers, [], 100, 10),
        (fit_on_answers, [7, 8], 0, 10),
        (fit_on_tight_budget, [], 300, 10),
        (fit_on_tight_budget, list(range(7, 19)), 420, 10),
        (fit_on_tight_budget, list(range(7, 40)), 500, 10),
        (fit_steadied, [], 100, 30),
        (fit_steadied, [7, 8], 100, 30),
        (fit_steadied, list(range(7, 307)), 100, 30),
    ],
)
def test_each_rule_draws_its_number_of_pseudo_negatives(index, fit, negatives, wanted, C):
    head = fit(lesson_of(index, [1, 2, 3], negatives))
    assert_same(head, naive_head(index, [1, 2, 3], negatives, wanted, C))


def test_the_head_of_rarefind_has_its_own_line_and_others_have_not(index):
    yes, no = list(range(8)), list(range(8, 40))
    lesson = lesson_of(index, yes, no)
    rng = np.random.default_rng(0)
    drawn = draw_unlike(
        Lesson(index, lesson.positives, lesson.negatives, lesson.unanswered, rng), 100
    )
    head = fit_steadied(lesson)
    taught = {"positives": lesson.positives, "negatives": lesson.negatives, "centre": index.mean}
    expected = find_line(head, **taught, pseudo_negatives=index.vectors[drawn], C=30.0)
    assert head.line == expected != 0
    assert fit_on_answers(lesson).line == fit_on_tight_budget(lesson).line == 0


def test_all_unanswered_may_be_fewer_than_wanted(index):
    lesson = lesson_of(index, [1, 2], [3])
    few = Lesson(index, lesson.positives, lesson.negatives, np.array([5]), lesson.rng)
    expected = fit_head(
        lesson.positives,
        lesson.negatives,
        pseudo_negatives=index.vectors[[5]],
        centre=index.mean,
    )
    assert_same(fit_with_pseudo_negatives(few, 100), expected)


def test_pseudo_negatives_follow_the_seed(index):
    one, same, other = (fit_steadied(lesson_of(index, [1], [2], seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.weights, same.weights)
    assert np.abs(one.weights - other.weights).max() > 0.01


def test_roots_are_of_unit_length():
    vectors = np.array([[0.36, 0.64, 0, 0], [0.09, -1, 0, 0.16], [-1, 0, 0, 0]], np.float32)
    expected = [[0.6, 0.8, 0, 0], [0.6, 0, 0, 0.8], [0, 0, 0, 0]]
    np.testing.assert_allclose(take_roots(vectors), expected, atol=1e-6)
    assert take_roots(vectors).dtype == np.float32
    assert take_roots(vectors[:0]).shape == (0, 4)


def test_a_head_on_roots_is_fitted_on_roots(make_index):
    index = make_index(np.abs(np.random.default_rng(4).standard_normal((300, 6))))
    rooted = make_index(np.sqrt(index.vectors))
    lesson = lesson_of(index, [1, 2, 3], [4, 5])
    drawn = lesson_of(index, [1, 2, 3], [4, 5]).rng.choice(lesson.unanswered, 200, replace=False)
    kept = np.sort(drawn)
    likeness = index.vectors[kept] @ index.vectors[[1, 2, 3]].mean(axis=0)
    expected = fit_head(
        rooted.vectors[[1, 2, 3]],
        rooted.vectors[[4, 5]],
        pseudo_negatives=rooted.vectors[kept[np.argsort(likeness)[:100]]],
        centre=np.sqrt(index.mean) / np.sqrt(index.mean.sum()),
        C=30,
        tol=1e-3,
    )
    head = fit_on_roots(lesson)
    np.testing.assert_allclose(
        rooted.scores(head.weights, head.bias),
        rooted.scores(expected.weights, expected.bias),
        atol=1e-3,
    )
