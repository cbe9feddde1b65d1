"""The loop: what every strategy must hold to, and the rules that come before any strategy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.head import Head
from app.engine.loop import (
    REASONS,
    STRATEGIES,
    Answers,
    Opening,
    UnknownStrategy,
    Value,
    make_opening,
    nearest_among,
    propose_round,
    rank_likely,
    round_rng,
)
from app.engine.strategies.round_state import Lesson, RoundState

LEARNING = [name for name in STRATEGIES if name not in ("random", "opening-only")]


def make_answers(**rows: list[int]) -> Answers:
    """make_answers(yes=[1], no=[2, 3], unsure=[4])"""
    values = {"yes": Value.YES, "no": Value.NO, "unsure": Value.UNSURE}
    return Answers(
        np.array([row for kind in rows.values() for row in kind], np.int64),
        np.array([values[name] for name, kind in rows.items() for _ in kind], np.int8),
    )


def open_with(index, row: int) -> Opening:
    return Opening(index.vectors[row], np.empty((0, index.dimension), np.float32))


def propose(index, answers, *, row=0, strategy="pf-ma", size=10, round_number=2, seed=0, **more):
    return propose_round(
        index,
        answers,
        opening=more.pop("opening", None) or open_with(index, row),
        strategy=strategy,
        size=size,
        round_number=round_number,
        rng=round_rng(seed, round_number),
        **more,
    )


@pytest.mark.parametrize("strategy", ["rarefind", "pf-ma", "random"])
@pytest.mark.parametrize("round_number", [1, 2])
def test_a_pool_without_images_gives_an_empty_grid(clusters, strategy, round_number):
    index, target_rows = clusters
    answers = make_answers(yes=[target_rows[0]], no=[target_rows[1]])
    nothing = np.empty(0, np.int64)
    arguments = {"strategy": strategy, "round_number": round_number, "pool_rows": nothing}
    assert len(propose(index, answers, **arguments).rows) == 0


# Round 1 and rounds with nothing to learn from


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "random"])
def test_round_one_is_nearest_to_the_opening(clusters, strategy):
    index, target_rows = clusters
    example = target_rows[0]
    answers = make_answers(yes=[example])

    proposal = propose(index, answers, row=example, strategy=strategy, round_number=1)

    similarities = index.vectors @ index.vectors[example]
    expected = np.argsort(-similarities, kind="stable")[1:11]
    assert proposal.rows.tolist() == expected.tolist()
    np.testing.assert_allclose(proposal.scores, similarities[expected], rtol=1e-5)
    assert np.isnan(proposal.probabilities).all()
    assert proposal.reasons == ("opening",) * 10
    assert proposal.head is None


def test_random_opens_at_random(clusters):
    index, _ = clusters
    first = propose(index, Answers.empty(), strategy="random", round_number=1, seed=1)
    other = propose(index, Answers.empty(), strategy="random", round_number=1, seed=2)
    assert first.rows.tolist() != other.rows.tolist()
    assert first.reasons == ("exploration",) * 10


@pytest.mark.parametrize("strategy", LEARNING)
def test_without_any_positive_the_opening_goes_on(clusters, strategy):
    index, _ = clusters
    similarities = index.vectors @ index.vectors[5]
    order = np.argsort(-similarities, kind="stable")
    answers = make_answers(no=order[:6].tolist(), unsure=order[6:8].tolist())

    proposal = propose(index, answers, row=5, strategy=strategy, round_number=3)

    assert proposal.rows.tolist() == order[8:18].tolist()
    assert proposal.reasons == ("opening",) * 10
    assert proposal.head is None


def test_an_uploaded_example_is_a_positive(clustered):
    index, target_rows = clustered
    others = np.setdiff1d(np.arange(index.count), target_rows)
    opening = Opening(index.vectors[target_rows[0]], index.vectors[target_rows[:1]])
    answers = make_answers(no=others[:20].tolist())

    proposal = propose(index, answers, opening=opening, strategy="most-positive")

    assert proposal.head is not None
    assert np.isin(proposal.rows, target_rows).sum() >= 8


def test_all_yes_so_far_learns_from_pseudo_negatives(clustered):
    index, target_rows = clustered
    answers = make_answers(yes=target_rows[:6:2].tolist())

    proposal = propose(index, answers, row=target_rows[0], strategy="most-positive")

    assert proposal.head is not None
    assert np.isin(proposal.rows, target_rows).sum() >= 8


def test_pseudo_negatives_come_from_the_bottom_half(make_index):
    # One axis orders all images. With the bottom half as negatives the line falls in the middle;
    # drawn from the top half it would fall above most of them.
    angles = np.linspace(0, np.pi / 2, 101)
    index = make_index(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    head = propose(index, make_answers(yes=[0])).head
    assert head is not None
    scores = index.scores(head.weights, head.bias)
    assert (np.diff(scores) < 0).all()
    assert 10 < (scores > 0).sum() < 55


# Rounds that learn


def test_swapping_yes_and_no_turns_the_ranking_round(clustered):
    index, target_rows = clustered
    others = np.setdiff1d(np.arange(index.count), target_rows)
    yes, no = target_rows[:8].tolist(), others[:8].tolist()

    proposal = propose(index, make_answers(yes=yes, no=no), strategy="most-positive")
    swapped = propose(index, make_answers(yes=no, no=yes), strategy="most-positive")

    assert np.isin(proposal.rows, target_rows).sum() >= 9
    assert np.isin(swapped.rows, target_rows).sum() == 0


@pytest.mark.parametrize("strategy", ["pf-ma", "most-positive", "most-ambiguous"])
def test_unsure_images_do_not_train(clusters, strategy):
    index, target_rows = clusters
    known = {"yes": target_rows[:4].tolist(), "no": [1, 2, 3]}
    pool = np.setdiff1d(np.arange(index.count), [7, 8, 9])

    without = propose(index, make_answers(**known), strategy=strategy, pool_rows=pool)
    with_unsure = propose(
        index, make_answers(**known, unsure=[7, 8, 9]), strategy=strategy, pool_rows=pool
    )

    np.testing.assert_array_equal(without.head.weights, with_unsure.head.weights)
    assert without.rows.tolist() == with_unsure.rows.tolist()


@pytest.mark.parametrize("strategy", LEARNING)
def test_proposal_says_what_the_head_says(clusters, strategy):
    index, target_rows = clusters
    answers = make_answers(yes=target_rows[:4].tolist(), no=[1, 2, 3])

    proposal = propose(index, answers, strategy=strategy)

    expected = index.vectors[proposal.rows] @ proposal.head.weights + proposal.head.bias
    np.testing.assert_allclose(proposal.scores, expected, atol=1e-5)
    np.testing.assert_allclose(proposal.probabilities, 1 / (1 + np.exp(-expected)), atol=1e-5)
    assert set(proposal.reasons) <= set(REASONS)


def test_a_line_that_was_moved_is_told_but_does_not_choose(clusters):
    """`rarefind` chooses by the head as it was fitted; the head that is kept has its line at 0."""
    index, target_rows = clusters
    yes = target_rows[::3].tolist()  # most images of the round are chosen by doubt
    no = [row for row in range(0, 400, 40) if row not in target_rows]
    answers = make_answers(yes=yes, no=no)
    open_rows = np.setdiff1d(np.arange(400), answers.rows)
    rng = round_rng(3, 2)
    lesson = Lesson(index, index.vectors[yes], index.vectors[no], open_rows, rng)
    fitted = STRATEGIES["rarefind"].fit(lesson)
    scores = index.scores(fitted.weights, fitted.bias)[open_rows]
    state = RoundState(
        index, answers, open_with(index, 0), lesson, open_rows, fitted, scores, 10, rng
    )
    expected = STRATEGIES["rarefind"].choose(state).rows.tolist()
    assert abs(fitted.line) >= 0.05

    proposal = propose(index, answers, strategy="rarefind", seed=3)

    assert proposal.rows.tolist() == expected
    assert (proposal.head.bias, proposal.head.line) == (fitted.bias - fitted.line, 0.0)
    told = index.vectors[proposal.rows] @ fitted.weights + fitted.bias - fitted.line
    np.testing.assert_allclose(proposal.scores, told, atol=1e-5)


def test_time_is_told_by_the_clock_given(clusters):
    ticks = iter([1.0, 3.0, 10.0])
    proposal = propose(clusters[0], Answers.empty(), clock=lambda: next(ticks))
    assert (proposal.fit_s, proposal.choose_s) == (2.0, 7.0)


# What every strategy must hold to


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_never_an_answered_row_never_twice(clusters, strategy, data):
    index, _ = clusters
    rows = data.draw(st.lists(st.integers(0, index.count - 1), unique=True, max_size=40))
    values = data.draw(
        st.lists(st.sampled_from([-1, 0, 1]), min_size=len(rows), max_size=len(rows))
    )
    answers = Answers(np.array(rows, np.int64), np.array(values, np.int8))
    size = data.draw(st.integers(0, 30))

    proposal = propose(index, answers, strategy=strategy, size=size)

    assert len(proposal.rows) == size == len(np.unique(proposal.rows))
    assert not np.isin(proposal.rows, rows).any()
    assert len(proposal.scores) == len(proposal.probabilities) == len(proposal.reasons) == size


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("left", [0, 1, 5])
def test_fewer_left_than_wanted_gives_all_that_are_left(clusters, strategy, left):
    index, target_rows = clusters
    answered = np.setdiff1d(np.arange(index.count), np.arange(left))
    values = np.where(np.isin(answered, target_rows), 1, -1).astype(np.int8)

    proposal = propose(index, Answers(answered, values), strategy=strategy, size=12)

    assert sorted(proposal.rows.tolist()) == list(range(left))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("round_number", [1, 2])
def test_only_the_pool_is_shown(clusters, strategy, round_number):
    index, target_rows = clusters
    pool = np.arange(3, 300, 7)
    answers = make_answers(yes=[int(target_rows[0])], no=[int(pool[0])])

    proposal = propose(
        index, answers, strategy=strategy, size=50, round_number=round_number, pool_rows=pool
    )

    expected = np.setdiff1d(pool, answers.rows)
    assert sorted(proposal.rows.tolist()) == expected.tolist()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_one_image_is_a_collection(make_index, strategy):
    index = make_index([[1.0, 2.0]])
    for round_number in (1, 2):
        shown = propose(index, Answers.empty(), strategy=strategy, round_number=round_number)
        assert shown.rows.tolist() == [0]
    for kind in ("yes", "no", "unsure"):
        assert len(propose(index, make_answers(**{kind: [0]}), strategy=strategy).rows) == 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_images_come_in_order_of_rows(make_index, strategy):
    index = make_index(np.ones((40, 3)))
    proposal = propose(index, make_answers(yes=[3], no=[5]), strategy=strategy, size=6)
    if strategy != "random":
        assert proposal.rows.tolist() == [0, 1, 2, 4, 6, 7]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_same_seed_same_round(clusters, strategy):
    index, target_rows = clusters
    answers = make_answers(yes=target_rows[:3].tolist(), no=[1, 2])
    one, other = (propose(index, answers, strategy=strategy, seed=5) for _ in range(2))
    assert one.rows.tolist() == other.rows.tolist()
    np.testing.assert_array_equal(one.scores, other.scores)


@pytest.mark.parametrize("strategy", [*STRATEGIES, "anchoral:badge"])
def test_order_of_answers_does_not_matter(clusters, strategy):
    index, target_rows = clusters
    yes, no = target_rows[:9].tolist(), np.setdiff1d(np.arange(60), target_rows)[:20].tolist()
    plain = propose(index, make_answers(yes=yes, no=no), strategy=strategy)
    turned = propose(index, make_answers(no=no[::-1], yes=yes[::-1]), strategy=strategy)
    assert turned.rows.tolist() == plain.rows.tolist()
    np.testing.assert_array_equal(turned.scores, plain.scores)


@pytest.mark.parametrize("strategy", ["pf-ma", "most-positive", "most-ambiguous", "opening-only"])
def test_permuting_the_images_permutes_the_round(clusters, make_index, strategy):
    index, target_rows = clusters
    order = np.random.default_rng(8).permutation(index.count)
    place = np.argsort(order)
    permuted = make_index(index.vectors[order])
    yes, no = target_rows[:5], np.setdiff1d(np.arange(50), target_rows)[:9]

    plain = propose(index, make_answers(yes=yes.tolist(), no=no.tolist()), strategy=strategy)
    moved = propose(
        permuted,
        make_answers(yes=place[yes].tolist(), no=place[no].tolist()),
        row=place[0],
        strategy=strategy,
    )

    assert order[moved.rows].tolist() == plain.rows.tolist()


def test_unknown_strategy_names_the_known_ones(clusters):
    with pytest.raises(UnknownStrategy, match=r"'pfma'.*pf-ma, .*random"):
        propose(clusters[0], Answers.empty(), strategy="pfma", round_number=1)


# Around the loop


def test_rounds_draw_different_numbers_and_the_same_again():
    drawn = [round_rng(seed, n).random() for seed, n in [(1, 1), (1, 2), (2, 1), (12, 1)]]
    assert len(set(drawn)) == 4
    assert round_rng(1, 2).random() == drawn[1]


def test_opening_is_the_mean_brought_to_unit_length():
    half = 0.5**0.5
    np.testing.assert_allclose(make_opening(np.array([[1, 0], [0, 1]])), [half, half], rtol=1e-6)
    np.testing.assert_allclose(
        make_opening(np.array([[1, 0], [0.6, 0.8]])), [0.894427, 0.447214], rtol=1e-5
    )
    np.testing.assert_array_equal(make_opening(np.array([[1, 0], [-1, 0]])), [1, 0])


def test_answers_are_told_apart():
    answers = make_answers(no=[4, 2], yes=[9], unsure=[1])
    assert answers.negatives.tolist() == [4, 2]
    assert answers.positives.tolist() == [9]


def test_likely_images_are_unanswered_and_best_first(make_index):
    index = make_index([[1, 0], [4, 3], [3, 4], [0, 1], [-1, 0]])
    head = Head(np.array([10, 0], np.float32), -5.0)

    rows, scores, chances = rank_likely(index, make_answers(yes=[0], unsure=[2]), head, 2)

    assert rows.tolist() == [1, 3]
    np.testing.assert_allclose(scores, [3, -5], rtol=1e-6)
    np.testing.assert_allclose(chances, 1 / (1 + np.exp([-3, 5])), rtol=1e-5)
    assert len(rank_likely(index, Answers.empty(), head, 99)[0]) == 5


def test_nearest_are_among_those_asked_for_and_not_the_image_itself(make_index):
    index = make_index([[1, 0], [4, 3], [3, 4], [0, 1], [-1, 0]])
    rows, similarities = nearest_among(index, 0, np.array([3, 0, 2]), 5)
    assert rows.tolist() == [2, 3]
    np.testing.assert_allclose(similarities, [0.6, 0], atol=1e-6)
