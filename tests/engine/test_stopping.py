"""Stop rules: met exactly when they say, and no advice to stop that the register does not bear."""

import re
from dataclasses import replace
from math import isnan
from pathlib import Path

import numpy as np
import pytest

from app.engine.answers import Answers
from app.engine.coverage import CoverageEstimate
from app.engine.remaining import Calibration, images_to_certify, plan_absence, plan_estimate
from app.engine.stopping import (
    LOOK_SIZE,
    STOP_RULES,
    Goal,
    Look,
    Standing,
    TakenSample,
    UnknownStopRule,
    advise,
    get_stop_rule,
    is_look_clean,
    knee_ratio,
    most_left,
    plan_look,
)

GOAL = Goal(recall=0.9)


def standing(letters: str, *, image_count: int = 1_000, **known) -> Standing:
    """A search with one example (row 0) and these answers on rows 1, 2, …, ten a round."""
    values = np.array([{"y": 1, "n": -1, "u": 0}[letter] for letter in letters], np.int8)
    answers = Answers(np.arange(len(values) + 1), np.concatenate([[1], values]).astype(np.int8))
    return Standing(
        answers=answers,
        values=values,
        rounds=np.arange(len(values)) // 10 + 1,
        image_count=image_count,
        scores=np.linspace(-9, -3, image_count - len(answers.rows)),
        **known,
    )


def clean_look(where: Standing) -> Standing:
    before = len(where.values)
    look = Look(seen_again=5, new=0, found=where.found, answers_before=before, is_whole=True)
    return replace(where, looks=(look,))


def is_met(name: str, where: Standing, goal: Goal = GOAL) -> bool:
    return advise(name, where, goal).met


def test_unknown_rules_are_refused_by_name():
    with pytest.raises(UnknownStopRule, match=r"'patience'.*run-of-noes"):
        get_stop_rule("patience")


@pytest.mark.parametrize("name", STOP_RULES)
def test_every_rule_says_something_at_any_moment(name):
    goal = Goal(recall=0.9, positives=5, coverage=0.8)
    for letters in ("", "n", "y", "nnnu", "y" * 30, "yn" * 40 + "n" * 120):
        advice = advise(name, standing(letters), goal)
        assert advice.met or re.fullmatch(r"[A-Z0-9].*\b(must|may|would)\b.*\.", advice.missing)
        assert advice.met or not advice.stop
        assert isnan(advice.cost) or advice.cost >= 0
    everything = advise(name, standing("yn" * 49 + "y", image_count=100), GOAL)
    assert everything.stop == (STOP_RULES[name].aim == "recall")  # nothing is left to find


@pytest.mark.parametrize(
    ("name", "letters", "sentence"),
    [
        ("run-of-noes", "y" + "n" * 49, "The next answer must be no."),
        (
            "knee",
            "y" * 10 + "n" * 10,
            "A yes must have become 146 times rarer than it was when finds came quickest; it is "
            "10 times rarer now.",
        ),
        (
            "knee",
            "n" * 10 + "y" * 10,
            "A yes must have become 146 times rarer than it was when finds came quickest; it is "
            "hardly rarer yet.",
        ),
        (
            "random-sample",
            "n" * 20,
            "955 images drawn at random must be answered. Are all of them no, you may stop; if "
            "not, more may be needed.",
        ),
    ],
)
def test_what_is_missing_is_told_in_plain_sentences(name, letters, sentence):
    missing = advise(name, standing(letters), GOAL).missing
    assert missing.replace("\u202f", "") == sentence


@pytest.mark.parametrize("name", STOP_RULES)
def test_a_rule_serves_its_own_kind_of_goal(name):
    other = {"recall": Goal(positives=1), "coverage": GOAL, "positives": GOAL}
    advice = advise(name, standing("y" * 5 + "n" * 200), other[STOP_RULES[name].aim])
    assert not advice.met and "another kind" in advice.missing


def test_most_left_is_what_the_goal_allows():
    assert [most_left(found, GOAL) for found in (0, 8, 9, 17, 18, 90)] == [0, 0, 1, 1, 2, 10]
    assert 90 / (90 + most_left(90, GOAL)) >= 0.9 > 90 / (91 + most_left(90, GOAL))


def test_run_of_noes_is_met_at_fifty():
    almost = advise("run-of-noes", standing("y" + "n" * 49), GOAL)
    assert (almost.met, almost.ask, almost.cost) == (False, "answers", 1)
    assert is_met("run-of-noes", standing("y" + "n" * 50))
    assert is_met("run-of-noes", standing("y" + "n" * 25 + "u" + "n" * 25))
    assert not is_met("run-of-noes", standing("n" * 50 + "y"))


def test_low_yield_counts_the_answers_until_the_old_yes_are_gone():
    where = standing("n" * 10 + "y" * 7 + "n" * 190)  # 7 yes within the last 200
    advice = advise("low-yield", where, GOAL)
    # They stand at places 3 to 9 of the window: five answers push two of them out.
    assert (advice.met, advice.cost) == (False, 5)
    assert is_met("low-yield", standing("n" * 10 + "y" * 7 + "n" * 195))
    assert not is_met("low-yield", standing("n" * 199))


def test_safe_needs_a_tenth_and_a_run():
    assert not is_met("safe", standing("y" + "n" * 98))
    assert is_met("safe", standing("y" + "n" * 99))
    assert not is_met("safe", standing("n" * 80 + "y" + "n" * 40))


def test_knee_by_a_naive_loop():
    values = np.array([1] * 18 + [-1, 1] + [-1] * 60, np.int8)
    rounds = np.arange(80) // 10
    ratios = []
    for cut in range(10, 80, 10):
        before, after = (values[:cut] == 1).sum(), (values[cut:] == 1).sum()
        ratios.append((before / cut) / ((1 + after) / (80 - cut)))
    assert knee_ratio(values, rounds) == pytest.approx((max(ratios), 156 - 19))
    assert knee_ratio(values[:10], rounds[:10])[0] == 0
    many = np.array([1] * 200 + [-1] * 1_300, np.int8)
    assert knee_ratio(many, np.arange(1_500) // 10)[1] == 6
    assert is_met("knee", standing("y" * 200 + "n" * 1_300, image_count=5_000))


def test_sum_of_chances_is_met_when_the_upper_end_is_small():
    steep = Calibration(2.0, -2.0, np.diag([1e-4, 1e-4]))
    flat = Calibration(0.2, -2.0, np.diag([1e-4, 1e-4]))
    found = "y" * 60 + "n" * 20
    assert is_met("sum-of-chances", standing(found, calibration=steep))
    assert not is_met("sum-of-chances", standing(found, calibration=flat))
    assert not is_met("sum-of-chances", standing(found))


def test_score_sample_asks_when_the_sum_is_small_and_believes_a_clean_sample():
    steep = Calibration(2.0, -2.0, np.diag([1e-4, 1e-4]))
    where = standing("y" * 60 + "n" * 20, calibration=steep)
    asked = advise("score-sample", where, GOAL)
    assert (asked.met, asked.ask, asked.cost) == (False, "estimate", 150)

    unanswered = np.arange(81, 1_000)
    plan = plan_estimate(where.scores, unanswered, 150, rng=np.random.default_rng(0))

    def after(found: int, more: str = "") -> Standing:
        new = np.where(np.arange(150) < found, 1, -1).astype(np.int8)
        taken = TakenSample(plan, 150, len(where.values))
        now = standing("y" * 60 + "n" * 20 + more, calibration=steep, sample=taken)
        rows = np.concatenate([now.answers.rows, plan.rows])
        return replace(now, answers=Answers(rows, np.concatenate([now.answers.values, new])))

    assert advise("score-sample", after(0), GOAL).met
    follow = advise("score-sample", after(2), GOAL)
    assert (follow.met, follow.ask, follow.cost) == (False, "answers", 100)

    def doubtful(value: int) -> Standing:
        """As a clean sample, but one image unsure (0) or left open (9)."""
        now = after(0)
        values = now.answers.values.copy()
        values[-1] = value
        keep = values != 9
        return replace(now, answers=Answers(now.answers.rows[keep], values[keep]))

    for value in (0, 9):
        advice = advise("score-sample", doubtful(value), GOAL)
        assert (advice.met, advice.ask) == (False, "estimate")
    again = advise("score-sample", after(2, "n" * 100), GOAL)
    assert (again.met, again.ask) == (False, "estimate")


def test_random_sample_says_its_price_first_and_certifies_when_it_is_paid():
    where = standing("y" * 40 + "n" * 25)
    # The first of several tries may be wrong once in 40, so that all are at most once in 20.
    needed = images_to_certify(934, most_left(41, GOAL), level=0.975)
    asked = advise("random-sample", where, GOAL)
    assert (asked.met, asked.ask, asked.cost) == (False, "absence", needed)
    still_finding = advise("random-sample", standing("n" * 25 + "y" * 40), GOAL)
    assert still_finding.ask == "answers" and still_finding.cost > 20

    for size, met in ((needed, True), (needed - 1, False)):
        plan = plan_absence(np.arange(66, 1_000), size, rng=np.random.default_rng(0))
        rows = np.concatenate([where.answers.rows, plan.rows])
        values = np.concatenate([where.answers.values, np.full(size, -1, np.int8)])
        after = replace(
            where, answers=Answers(rows, values), control=TakenSample(plan, size, len(where.values))
        )
        advice = advise("random-sample", after, GOAL)
        assert (advice.met, advice.stop) == (met, met)  # it needs no second look

    second = replace(where, control=replace(after.control, number=2), values=where.values)
    assert not advise("random-sample", second, GOAL).met
    later = standing("y" * 40 + "n" * 125, control=replace(after.control, number=1))
    price = images_to_certify(later.unanswered_count, most_left(41, GOAL), level=0.9875)
    assert advise("random-sample", later, GOAL).cost == price


def test_ranked_tail_is_met_only_after_its_hundreds_of_no():
    # 20 examples and finds; 1 - 0.05^(1/3) = 63 % of the rest must be no at 90 % recall.
    found = "y" * 19
    price = advise("ranked-tail", standing(found), GOAL).cost
    assert price == pytest.approx(0.63 * 980, abs=15)
    assert not is_met("ranked-tail", standing(found + "n" * int(price - 10)))
    assert is_met("ranked-tail", standing(found + "n" * int(price + 10)))


def test_enough_counts_positives_and_sure_coverage():
    assert is_met("enough-positives", standing("y" * 9), Goal(positives=10))  # and the example
    assert not is_met("enough-positives", standing("y" * 8), Goal(positives=10))
    for low, met in ((0.79, False), (0.81, True)):
        where = standing("y", coverage=CoverageEstimate(0.9, low, 0.95, 40.0))
        assert is_met("enough-coverage", where, Goal(coverage=0.8)) == met


def test_a_rule_that_reads_the_searchs_work_needs_a_clean_second_look():
    where = standing("y" + "n" * 60)
    before = advise("run-of-noes", where, GOAL)
    assert (before.met, before.stop, before.ask) == (True, False, "second-look")
    assert before.cost == LOOK_SIZE

    before = len(where.values)
    found = Look(seen_again=1, new=3, found=5, answers_before=before, is_whole=True)
    dirty = advise("run-of-noes", replace(where, looks=(found,)), GOAL)
    assert (dirty.stop, dirty.ask, dirty.cost) == (False, "answers", 20)
    assert "3 more" in dirty.missing
    followed_up = replace(where, looks=(replace(found, answers_before=len(where.values) - 20),))
    assert advise("run-of-noes", followed_up, GOAL).ask == "second-look"

    outdated = Look(seen_again=1, new=0, found=1, answers_before=20, is_whole=True)
    assert advise("run-of-noes", replace(where, looks=(outdated,)), GOAL).ask == "second-look"


def test_look_that_was_cut_short_or_left_open_does_not_count():
    where = clean_look(standing("y" + "n" * 60))
    assert is_look_clean(where)
    partly = replace(where, looks=(replace(where.looks[0], is_whole=False),))
    assert not is_look_clean(partly)
    advice = advise("run-of-noes", partly, GOAL)
    assert (advice.ask, advice.stop) == ("second-look", False)
    assert "does not count" in advice.missing
    assert "does not count" not in advise("run-of-noes", standing("y" + "n" * 60), GOAL).missing


def test_no_rule_that_was_wrong_too_often_advises_to_stop(monkeypatch):
    where = clean_look(standing("y" + "n" * 60))
    for risk, stop in ((0.05, True), (0.06, False), (None, False)):
        monkeypatch.setitem(
            STOP_RULES, "run-of-noes", replace(STOP_RULES["run-of-noes"], risk=risk)
        )
        advice = advise("run-of-noes", where, GOAL)
        assert (advice.met, advice.stop) == (True, stop)
        assert bool(advice.missing) == (not stop)
        assert ("6 %" in advice.missing) == (risk == 0.06)
    monkeypatch.setitem(STOP_RULES, "run-of-noes", replace(STOP_RULES["run-of-noes"], risk=0.06))
    assert advise("run-of-noes", where, replace(GOAL, confidence=0.9)).stop


def test_only_what_is_counted_or_certified_is_trusted_at_95_per_cent():
    trusted = {n for n, rule in STOP_RULES.items() if rule.risk is not None and rule.risk <= 0.05}
    assert trusted == {"random-sample", "enough-positives"}
    assert {STOP_RULES[name].kind for name in trusted} == {"certificate"}
    assert advise("enough-positives", standing("y"), Goal(positives=2, confidence=0.99)).stop


def test_the_register_carries_the_record_that_the_docs_show():
    text = (Path(__file__).parents[2] / "docs/algorithms.md").read_text()
    section = text.split("## When to stop")[1].split("\n## ")[0]
    lines = re.findall(r"^\| `([a-z-]+)`.*\| (\d+) of 72 \| *(\d*) \|", section, re.MULTILINE)
    assert [name for name, _, _ in lines] == list(STOP_RULES)
    for name, stopped, wrong in lines:
        rule = STOP_RULES[name]
        if int(stopped) == 0:
            assert rule.risk is None
        else:
            assert rule.risk == round(int(wrong) / int(stopped), 2)


def test_second_look_is_beside_the_positives_and_far_from_everything(make_index):
    angles = np.radians([0, 4, 7, 90, 95, 180, 185, 270])
    index = make_index(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    answers = Answers(np.array([0, 3]), np.array([1, -1], np.int8))
    unanswered = np.array([1, 2, 4, 5, 6, 7])
    look = plan_look(index, answers, unanswered, 4, rng=np.random.default_rng(0))
    # 4 and 7 degrees are beside the positive; 185 is farthest from 0 to 90, then 270.
    assert sorted(look.rows[:2].tolist()) == [1, 2]
    assert look.rows[2] in (6, 7) and len(set(look.rows.tolist())) == 4
    assert look.seen_again == 0

    known = Answers(np.array([0, 1, 3]), np.array([1, 1, -1], np.int8))
    look = plan_look(index, known, np.array([2, 4, 5, 6, 7]), 2, rng=np.random.default_rng(0))
    assert look.rows[0] == 2
    assert look.seen_again in (0, 1)  # the other positive, if the one asked is farther from row 2


def test_second_look_of_a_search_without_a_yes_explores(make_index):
    index = make_index(np.random.default_rng(0).normal(size=(30, 4)))
    nothing = plan_look(index, Answers.empty(), np.arange(30), 6, rng=np.random.default_rng(0))
    assert len(set(nothing.rows.tolist())) == 6 and nothing.seen_again == 0
    few = plan_look(index, Answers.empty(), np.arange(3), 6, rng=np.random.default_rng(0))
    assert sorted(few.rows.tolist()) == [0, 1, 2]
