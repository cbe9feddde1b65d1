"""Events: one place of a round each, one lesson each, and runs of nearly the same images."""

import numpy as np
import pytest

from app.engine.answers import Answers, Opening, Value
from app.engine.events import (
    answer_by_event,
    first_of_each,
    group_alike,
    rows_with,
    show_one_each,
    spread_over_events,
    teach_one_each,
)
from app.engine.loop import STRATEGIES, Choice, make_opening, propose_round, round_rng
from app.engine.replay import replay

# Rows 0, 2, 5 are one event, 3 and 4 another; 1 and 6 stand alone.
EVENTS = np.array([0, 1, 0, 3, 3, 0, 6])


def test_of_each_event_the_best_image_is_shown_and_ties_go_to_the_first():
    rows = np.array([1, 2, 3, 4, 5, 6])  # row 0 has an answer
    keys = np.array([0.5, 0.7, 0.1, 0.1, 0.9, -2.0], np.float32)
    assert show_one_each(rows, keys, EVENTS).tolist() == [1, 3, 5, 6]


def test_first_places_and_members():
    assert first_of_each(np.array([5, 4, 2, 1, 3]), EVENTS).tolist() == [0, 1, 3]
    assert rows_with(np.array([5, 6]), EVENTS).tolist() == [0, 2, 5, 6]


def test_the_head_hears_of_the_image_that_was_looked_at():
    answers = Answers(
        np.array([0, 1, 2, 3, 4, 5]),
        np.array([1, 1, 1, 1, -1, 1], np.int8),
        np.array([False, True, False, True, True, True]),
    )
    taught = teach_one_each(answers, EVENTS)
    # Of rows 0, 2, 5 the last was looked at; 3 and 4 were answered apart and both teach.
    assert taught.rows.tolist() == [1, 3, 4, 5]
    assert taught.values.tolist() == [1, 1, -1, 1]
    all_seen = Answers(answers.rows, answers.values)
    assert teach_one_each(all_seen, EVENTS).rows.tolist() == [0, 1, 3, 4]


def test_an_event_is_yes_if_any_image_of_it_is():
    answers = Answers(np.array([2, 4, 5, 3, 6]), np.array([-1, 0, 1, -1, 0], np.int8))
    counted = answer_by_event(answers, EVENTS)
    assert dict(zip(counted.rows.tolist(), counted.values.tolist(), strict=True)) == {
        0: Value.YES,
        3: Value.NO,
        6: Value.UNSURE,
    }


def test_an_answer_is_for_what_may_be_shown_and_has_none():
    before = Answers(np.array([2]), np.array([-1], np.int8))
    pool = np.array([0, 1, 2, 3, 5])
    after = spread_over_events(before, np.array([3, 5]), np.array([1, 1], np.int8), EVENTS, pool)
    assert after.rows.tolist() == [2, 3, 5, 0]  # 4 is outside the pool
    assert after.values.tolist() == [-1, 1, 1, 1]
    assert after.looked_at.tolist() == [True, True, True, False]


def test_a_run_goes_on_while_images_are_like_its_first():
    angles = np.radians([0, 8, 16, 24, 24, 90, 91, 91])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    is_apart = np.array([False] * 7 + [True])
    zero = np.zeros(2, np.float32)
    # 16 degrees at most
    runs = group_alike(vectors, np.arange(8), is_apart, centre=zero, least=0.96, most=99)
    # 24 is like the one before it, yet not like the first; the last stands elsewhere.
    assert runs.tolist() == [0, 0, 0, 1, 1, 2, 2, 3]
    short = group_alike(vectors, np.arange(8), is_apart, centre=zero, least=-1, most=3)
    assert np.bincount(short).tolist() == [3, 3, 1, 1]
    none = group_alike(vectors, np.arange(0), is_apart[:0], centre=zero, least=0.9, most=3)
    assert none.tolist() == []


def test_what_all_images_have_in_common_makes_none_alike():
    rng = np.random.default_rng(0)
    own = rng.standard_normal((40, 16)).astype(np.float32)
    own[7] = own[6] + 0.01
    vectors = own + 60  # every two of them have a cosine above 0.99
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    runs = group_alike(
        vectors,
        np.arange(40),
        np.zeros(40, bool),
        centre=vectors.mean(axis=0),
        least=0.95,
        most=99,
    )
    assert np.flatnonzero(np.diff(runs) == 0).tolist() == [6]


@pytest.fixture(scope="module")
def bursts(clusters):
    """The index of 400 with bursts of 1 to 6 rows in a row, but for some rows apart."""
    index, target_rows = clusters
    rng = np.random.default_rng(1)
    starts = np.cumsum(rng.integers(1, 7, 400))
    return (
        index,
        target_rows,
        np.concatenate([[0], starts[starts < 400]])[
            np.searchsorted(starts, np.arange(400), side="right")
        ],
    )


@pytest.mark.parametrize("strategy", [*STRATEGIES, "anchoral:pf-ma"])
def test_no_strategy_gives_an_event_two_places(bursts, strategy):
    index, target_rows, events = bursts
    assert (events[events] == events).all() and (events <= np.arange(400)).all()
    played = replay(
        index,
        target_rows,
        opening_rows=target_rows[:1],
        strategy=strategy,
        rounds=6,
        size=10,
        seed=3,
        events=events,
    )
    asked = [events[one.proposal.rows] for one in played]
    assert all(len(set(own.tolist())) == 10 for own in asked)
    together = np.concatenate(asked)
    assert len(set(together.tolist())) == 60  # nor in two rounds: it was answered as a whole
    assert len(played[-1].answers.rows) > 100


def test_each_image_alone_is_as_without_events(clusters):
    index, target_rows = clusters
    runs = [
        replay(
            index,
            target_rows,
            opening_rows=target_rows[:1],
            strategy="rarefind",
            rounds=5,
            size=10,
            seed=3,
            events=events,
        )
        for events in (None, np.arange(index.count))
    ]
    for one, other in zip(*runs, strict=True):
        assert one.proposal.rows.tolist() == other.proposal.rows.tolist()


def propose(index, answers, events, **more):
    opening = Opening(make_opening(index.vectors[:1]), np.empty((0, index.dimension), np.float32))
    return propose_round(
        index,
        answers,
        opening=opening,
        strategy="pf-ma",
        size=4,
        round_number=2,
        rng=round_rng(1, 2),
        events=events,
        **more,
    )


def test_a_burst_counts_once_in_the_head_unless_asked(clusters):
    index, _ = clusters
    events = np.arange(index.count)
    events[10:40] = 10
    one = Answers(np.array([5, 10]), np.array([1, -1], np.int8))
    many = Answers(np.arange(5, 40), np.array([1] + [0] * 4 + [-1] * 30, np.int8))
    weights = propose(index, one, events).head.weights
    np.testing.assert_allclose(propose(index, many, events).head.weights, weights)
    taught_all = propose(index, many, events, teach_all=True).head.weights
    assert not np.allclose(taught_all, weights)
    np.testing.assert_allclose(taught_all, propose(index, many, None).head.weights)


def test_planned_rows_come_in_their_order_one_of_each_event(clusters):
    index, _ = clusters
    events = np.arange(index.count)
    events[50:60] = 50
    plan = Choice.of(np.array([55, 7, 51, 9, 3, 8]), "sample")
    answers = Answers(np.array([0]), np.array([1], np.int8))
    assert propose(index, answers, events, planned=plan).rows.tolist() == [55, 7, 9, 3]
    assert propose(index, answers, None, planned=plan).rows.tolist() == [55, 7, 51, 9]
