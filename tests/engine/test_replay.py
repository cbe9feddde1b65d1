"""Replay: the same loop, an oracle that keeps its word, and splits that keep groups together."""

import numpy as np
import pytest

from app.engine.answers import Answers, Opening, Value
from app.engine.loop import STRATEGIES, make_opening, propose_round, round_rng
from app.engine.replay import hold_out, replay, retrace


def play(clusters, **changes):
    index, target_rows = clusters
    arguments = {
        "opening_rows": target_rows[:1],
        "strategy": "pf-ma",
        "rounds": 8,
        "size": 10,
        "seed": 3,
    }
    return replay(index, target_rows, **(arguments | changes))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_round_is_what_the_loop_proposes(clusters, strategy):
    index, target_rows = clusters
    opening = Opening(make_opening(index.vectors[target_rows[:2]]), np.empty((0, 16), np.float32))
    answers = Answers(target_rows[:2], np.ones(2, np.int8))

    played = play(clusters, strategy=strategy, opening_rows=target_rows[:2], rounds=4)

    for number, one in enumerate(played, start=1):
        proposal = propose_round(
            index,
            answers,
            opening=opening,
            strategy=strategy,
            size=10,
            round_number=number,
            rng=round_rng(3, number),
        )
        assert one.proposal.rows.tolist() == proposal.rows.tolist()
        answers = one.answers


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_retraced_has_the_heads_that_chose_its_rounds(clusters, strategy):
    index, target_rows = clusters
    pool = np.arange(0, index.count, 2)
    played = play(clusters, strategy=strategy, rounds=4, pool_rows=pool)
    traced = retrace(
        index,
        opening_rows=target_rows[:1],
        shown=[one.proposal.rows for one in played[:3]],
        values=[one.values for one in played[:3]],
        strategy=strategy,
        seed=3,
        pool_rows=pool,
    )
    assert len(traced) == 4 and len(traced[3].proposal.rows) == 0
    for own, known in zip(traced, played, strict=True):
        assert (own.proposal.head is None) == (known.proposal.head is None)
        if own.proposal.head is not None:
            assert own.proposal.head.weights.tolist() == known.proposal.head.weights.tolist()
            assert own.proposal.head.bias == known.proposal.head.bias
    for own, known in zip(traced[:3], played, strict=False):
        assert own.proposal.scores.tolist() == known.proposal.scores.tolist()
        assert own.answers.rows.tolist() == known.answers.rows.tolist()


def test_the_oracle_answers_by_the_labels(clusters):
    _, target_rows = clusters
    played = play(clusters)
    for one in played:
        expected = np.where(np.isin(one.proposal.rows, target_rows), Value.YES, Value.NO)
        assert one.values.tolist() == expected.tolist()
    last = played[-1].answers
    assert len(np.unique(last.rows)) == len(last.rows) == 81
    assert np.isin(last.positives, target_rows).all()
    assert len(last.positives) > 20  # the loop finds most of the 30


def test_learning_beats_chance_and_the_opening_alone(clusters):
    found = {
        name: len(play(clusters, strategy=name)[-1].answers.positives)
        for name in ("pf-ma", "most-positive", "opening-only", "random")
    }
    assert found["pf-ma"] > found["opening-only"] > found["random"]
    assert found["most-positive"] > found["opening-only"]


def test_mistakes_and_unsure_come_at_the_given_rates(clusters):
    _, target_rows = clusters
    arguments = {"strategy": "random", "rounds": 40, "size": 10, "oracle_unsure": 0.3}
    played = play(clusters, **arguments, oracle_error=0.2)
    rows = np.concatenate([one.proposal.rows for one in played])
    values = np.concatenate([one.values for one in played])

    assert len(rows) == 399  # all but the opening
    assert 0.22 < (values == Value.UNSURE).mean() < 0.38
    sure = values != Value.UNSURE
    wrong = (values[sure] == Value.YES) != np.isin(rows[sure], target_rows)
    assert 0.13 < wrong.mean() < 0.27


def test_same_seed_same_replay_and_another_seed_another(clusters):
    def rows(**changes):
        played = play(clusters, oracle_error=0.3, **changes)
        return [(one.proposal.rows.tolist(), one.values.tolist()) for one in played]

    assert rows() == rows()
    assert rows() != rows(seed=4)


def test_replay_ends_when_no_image_is_left(clusters):
    _, target_rows = clusters
    pool = np.setdiff1d(np.arange(25), target_rows[:1])
    played = play(clusters, pool_rows=pool, rounds=50)
    assert sum(len(one.values) for one in played) == len(pool)
    assert len(played) == -(-len(pool) // 10)


def test_hold_out_splits_rows():
    pool, test = hold_out(100, 0.2, seed=1)
    assert len(test) == 20
    assert sorted([*pool, *test]) == list(range(100))
    assert hold_out(100, 0.2, seed=2)[1].tolist() != test.tolist()
    assert len(hold_out(100, 0.0, seed=1)[1]) == 0


def test_hold_out_keeps_groups_together():
    groups = np.random.default_rng(0).integers(0, 30, 200)
    pool, test = hold_out(200, 0.25, seed=5, groups=groups)
    assert set(groups[pool]).isdisjoint(groups[test])
    assert 30 <= len(test) <= 50
