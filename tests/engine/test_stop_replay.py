"""Stop rules on a replay: the moment, the cost and the truth of each stop."""

import numpy as np
import pytest

from app.engine.replay import replay
from app.engine.stop_replay import replay_stops
from app.engine.stopping import LOOK_SIZE, STOP_RULES, Goal, UnknownStopRule

GOAL = Goal(recall=0.9)


@pytest.fixture(scope="module")
def played(clustered):
    index, target_rows = clustered
    return replay(
        index,
        target_rows,
        opening_rows=target_rows[:1],
        strategy="most-positive",
        rounds=31,
        size=10,
        seed=1,
    )


def walk(clustered, played, goals, **changes):
    index, target_rows = clustered
    asked = []

    def ask(rows, number):
        asked.append((number, rows.tolist()))
        return np.where(np.isin(rows, target_rows), 1, -1).astype(np.int8)

    arguments = {
        "rounds": 30,
        "opening_count": 1,
        "pool_rows": np.arange(400),
        "ask_oracle": ask,
        "seed": 1,
    }
    return replay_stops(index, target_rows, played, goals, **(arguments | changes)), asked


def test_enough_positives_stops_at_the_round_that_has_them(clustered, played):
    outcomes, asked = walk(clustered, played, {"enough-positives": Goal(positives=12)})
    one = outcomes["enough-positives"]
    number = next(n for n, r in enumerate(played, 1) if len(r.answers.positives) >= 12)
    assert (one.stopped, one.advised, one.reached) == (True, True, True)
    assert (one.round, one.answers, one.extra) == (number, 10 * number, 0)
    assert (one.first, one.beyond) == (10 * number, 0)
    assert one.recall == len(played[number - 1].answers.positives) / 30
    assert not asked


def test_run_of_noes_stops_after_its_run_and_a_clean_look(clustered, played):
    outcomes, asked = walk(clustered, played, {"run-of-noes": GOAL})
    one = outcomes["run-of-noes"]
    values = np.concatenate([r.values for r in played])
    met = next(n for n in range(1, 31) if n >= 5 and (values[10 * n - 50 : 10 * n] == -1).all())
    assert one.stopped and not one.advised
    assert one.round >= met == asked[0][0]
    assert all(len(rows) == LOOK_SIZE for _, rows in asked)
    first = next(n for n, r in enumerate(played, 1) if len(r.answers.positives) >= 27)
    assert one.first == 10 * first
    looked = {row for _, rows in asked for row in rows}
    shown = set(played[one.round - 1].answers.rows.tolist())
    assert one.extra == len(looked - shown)
    assert one.answers == 10 * one.round + one.extra
    assert one.reached and one.beyond == one.answers - one.first


def test_random_sample_certifies_and_counts_its_price(clustered, played):
    _, target_rows = clustered
    outcomes, asked = walk(clustered, played, {"random-sample": GOAL})
    one = outcomes["random-sample"]
    assert (one.stopped, one.advised, one.reached) == (True, True, True)
    assert one.extra > 100
    found = set(played[one.round - 1].answers.positives.tolist())
    found |= {row for _, rows in asked for row in rows if row in target_rows}
    assert one.recall == pytest.approx(len(found) / 30)


def test_a_rule_that_never_stops_ends_with_the_last_round(clustered, played):
    outcomes, _ = walk(clustered, played, {"knee": GOAL}, rounds=12)
    one = outcomes["knee"]
    assert (one.stopped, one.round, one.answers) == (False, 12, 120)
    assert np.isnan(one.beyond)


def test_a_goal_that_the_rounds_never_reach_has_no_first_moment(clustered, played):
    outcomes, _ = walk(clustered, played, {"enough-positives": Goal(positives=31)})
    one = outcomes["enough-positives"]
    assert not one.stopped and not one.reached
    assert np.isnan(one.first) and np.isnan(one.beyond)


def test_rules_do_not_disturb_each_other_and_repeat(clustered, played):
    goals = {
        name: {"recall": GOAL, "coverage": Goal(coverage=0.8), "positives": Goal(positives=12)}[
            rule.aim
        ]
        for name, rule in STOP_RULES.items()
    }
    together, _ = walk(clustered, played, goals)
    again, _ = walk(clustered, played, goals)
    assert list(together) == list(STOP_RULES)
    np.testing.assert_equal(together, again)
    for name, goal in goals.items():
        alone, _ = walk(clustered, played, {name: goal})
        np.testing.assert_equal(alone[name], together[name])


def test_samples_come_from_the_pool_alone(clustered):
    index, target_rows = clustered
    pool = np.setdiff1d(np.arange(400), np.arange(0, 400, 5))
    findable = target_rows[np.isin(target_rows, pool)]
    played = replay(
        index,
        target_rows,
        opening_rows=findable[:1],
        strategy="most-positive",
        rounds=26,
        size=10,
        seed=1,
        pool_rows=pool,
    )
    goals = {"random-sample": GOAL, "run-of-noes": GOAL}
    outcomes, asked = walk(clustered, played, goals, pool_rows=pool, rounds=25)
    rows = np.concatenate([rows for _, rows in asked])
    assert np.isin(rows, pool).all()
    assert len(rows) and outcomes["random-sample"].stopped


def test_unknown_rules_are_refused(clustered, played):
    with pytest.raises(UnknownStopRule):
        walk(clustered, played, {"patience": GOAL})
