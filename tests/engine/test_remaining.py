"""How many remain: known tables, all samples of small populations, and what may never happen."""

from itertools import combinations
from math import comb, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from app.engine.answers import Answers
from app.engine.remaining import (
    Calibration,
    binomial_interval,
    calibrate,
    calibrated_sum,
    certify_left,
    chapman,
    count_run,
    estimate_left,
    hypergeometric_tail,
    images_to_certify,
    largest_count,
    negatives_to_stop,
    plan_absence,
    plan_estimate,
    recall_p_value,
    recent_yield,
    run_of_negatives,
    yield_curve,
)


def values(letters: str) -> np.ndarray:
    return np.array([{"y": 1, "n": -1, "u": 0}[letter] for letter in letters], np.int8)


def answer(rows: np.ndarray, truth: np.ndarray) -> Answers:
    return Answers(rows, np.where(np.isin(rows, truth), 1, -1).astype(np.int8))


# --- Heuristics


@pytest.mark.parametrize(
    ("letters", "run"), [("", 0), ("y", 0), ("n", 1), ("nyn", 1), ("ynunn", 3), ("nnnu", 3)]
)
def test_run_counts_no_since_the_last_yes_and_skips_unsure(letters, run):
    assert count_run(values(letters)) == run


def test_run_of_negatives_bounds_the_share_of_yes():
    said = run_of_negatives(values("y" + "n" * 59))
    assert (said.value, said.low) == (0, 0)
    assert said.high == pytest.approx(0.0495, abs=1e-4)  # 59 random no: below 5 %
    after_yes = run_of_negatives(values("nny"))
    assert np.isnan(after_yes.value) and after_yes.high == 1


def test_recent_yield_looks_at_the_window_alone():
    said = recent_yield(values("y" * 30 + "ny" * 5), window=10)
    exact = stats.binomtest(5, 10).proportion_ci(0.95, "exact")
    assert (said.value, said.low, said.high) == pytest.approx((0.5, exact.low, exact.high))
    nothing = recent_yield(values(""))
    assert np.isnan(nothing.value) and (nothing.low, nothing.high) == (0, 1)


def test_binomial_interval_is_the_exact_one():
    for yes in range(8):
        exact = stats.binomtest(yes, 7).proportion_ci(0.9, "exact")
        assert binomial_interval(yes, 7, 0.9) == pytest.approx((exact.low, exact.high))


def test_yield_curve_is_the_most_likely_number_left():
    letters = "yyynynnynnnnynnnn"
    times = np.flatnonzero(values(letters) == 1) + 1

    def likelihood(left: int) -> float:
        # Faults found at exponential times, the rest not within n: a naive grid over the rate.
        total, n = len(times) + left, len(letters)
        ways = np.prod([total - i for i in range(len(times))], dtype=float)
        return max(
            ways * rate ** len(times) * np.exp(-rate * (times.sum() + n * left))
            for rate in np.geomspace(0.01, 1, 4000)
        )

    likelihoods = [likelihood(left) for left in range(60)]
    said = yield_curve(values(letters), 59)
    assert said.value == int(np.argmax(likelihoods))
    inside = np.flatnonzero(np.log(likelihoods) >= np.log(max(likelihoods)) - 3.841 / 2)
    assert (said.low, said.high) == (inside[0], inside[-1])


def test_yield_curve_knows_nothing_before_it_bends():
    steady = yield_curve(values("nyn" * 20), 500)
    assert steady.high == 500
    none = yield_curve(values("nnn"), 500)
    assert np.isnan(none.value) and (none.low, none.high) == (0, 500)


# --- Estimates


def test_calibration_learns_what_scores_were_worth():
    rng = np.random.default_rng(0)
    scores = rng.uniform(-4, 4, 3_000)
    is_yes = rng.random(3_000) < 1 / (1 + np.exp(-(2 * scores - 3)))
    said = calibrate(scores, np.where(is_yes, 1, -1).astype(np.int8), np.full(10, -9.0))
    assert (said.slope, said.shift) == pytest.approx((2, -3), abs=0.35)
    error = np.sqrt(np.diag(said.covariance))
    assert abs(said.slope - 2) < 3 * error[0] and error[0] < 0.2
    # However many the answers, the shift stays in doubt: sums are off by a factor of e and more.
    assert error[1] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("letters", ["", "uu", "n" * 108, "un"])
def test_calibration_without_a_yes_is_none(letters):
    assert calibrate(np.linspace(-3, -1, len(letters)), values(letters), np.full(9, -7.0)) is None


def test_calibration_begins_with_the_first_yes():
    assert calibrate(np.array([-2.0, 1.0]), values("ny"), np.full(9, -7.0)) is not None


def test_unanswered_images_pull_low_scores_down():
    shown, said = np.linspace(-0.5, 2, 20), values("ny" * 10)
    alone = calibrate(shown, said, np.empty(0))
    anchored = calibrate(shown, said, np.linspace(-6, -3, 4_000))
    low = np.array([-4.0])
    assert anchored.chances(low) < 0.01 < alone.chances(low)
    assert anchored.slope > 0


def test_calibration_takes_all_scores_alike_however_many():
    scores = np.random.default_rng(1).normal(-3, 1, 9_000)
    shown, said = np.linspace(-2, 2, 30), values("nnnnnnnynnyynnnyynyyynyyyyyyyy")
    whole = calibrate(shown, said, scores)
    tenfold = calibrate(shown, said, np.repeat(scores, 10))
    assert (whole.slope, whole.shift) == pytest.approx((tenfold.slope, tenfold.shift), abs=0.05)


def test_draws_scatter_round_the_chances_as_the_line_does():
    doubtful = Calibration(0.3, -1.0, np.diag([0.04, 0.25]))
    scores = np.array([0.0, 2.0])
    drawn = doubtful.draws(scores, 4_000, rng=np.random.default_rng(0))
    logits = np.log(drawn / (1 - drawn))
    assert drawn.shape == (4_000, 2)
    np.testing.assert_allclose(np.median(drawn, axis=0), doubtful.chances(scores), atol=0.01)
    assert logits[:, 0].std() == pytest.approx(0.5, rel=0.05)
    assert (drawn[:, 1] >= drawn[:, 0]).all()  # no line falls


def test_calibrated_sum_adds_chances_and_doubts_the_line():
    scores = np.linspace(-5, 1, 200)
    sure = Calibration(1.5, -1.0, np.zeros((2, 2)))
    doubtful = Calibration(1.5, -1.0, np.diag([0.3, 0.5]))
    chances = 1 / (1 + np.exp(-(1.5 * scores - 1)))
    one, other = (calibrated_sum(scores, c, rng=np.random.default_rng(0)) for c in (sure, doubtful))
    assert one.value == other.value == pytest.approx(chances.sum())
    assert one.low < one.value < one.high
    spread = 2 * 1.96 * np.sqrt(chances.sum())
    assert one.high - one.low == pytest.approx(spread, rel=0.15)
    assert other.high > one.high and other.low < one.low


def test_chapman_by_hand():
    # 30 found; of the second look's 12 positives 10 were known: (31 · 13 / 11) - 1 - 32 are left.
    said = chapman(30, 10, 2, 500)
    assert said.value == pytest.approx(31 * 13 / 11 - 1 - 32)
    share = stats.binomtest(10, 12).proportion_ci(0.95, "exact")
    assert said.low == pytest.approx(max(30 / share.high - 32, 0))
    assert said.high == pytest.approx(30 / share.low - 32)
    blind = chapman(30, 0, 0, 500)
    assert (blind.low, blind.high) == (0, 500)


# --- Samples


def test_plan_gives_every_image_its_chance_and_more_to_high_scores():
    unanswered = np.arange(0, 9_000, 3)
    scores = np.random.default_rng(3).normal(size=3_000)
    plan = plan_estimate(scores, unanswered, 150, rng=np.random.default_rng(0))

    assert len(np.unique(plan.rows)) == 150
    assert np.isin(plan.rows, unanswered).all()
    by_score = plan.strata[np.argsort(-scores, kind="stable")]
    assert (np.diff(by_score) >= 0).all()
    sizes = np.bincount(plan.strata)
    assert sizes[:4].tolist() == [25, 25, 50, 100]
    drawn = np.bincount(plan.strata[np.searchsorted(unanswered, plan.rows)])
    assert (drawn > 0).all()
    chances = drawn / sizes
    assert (np.diff(chances) <= 0).all() and chances[0] > 5 * chances[-1]
    np.testing.assert_allclose(
        plan.chances, chances[plan.strata[np.searchsorted(unanswered, plan.rows)]]
    )


def test_every_image_is_drawn_as_often_as_its_chance_says():
    scores = -np.arange(60.0)
    counts = np.zeros(60)
    for seed in range(3_000):
        plan = plan_estimate(scores, np.arange(60), 9, rng=np.random.default_rng(seed))
        counts[plan.rows] += 1
    chances = np.zeros(60)
    chances[plan.rows] = plan.chances
    for stratum in range(plan.strata.max() + 1):
        members = plan.strata == stratum
        chance = chances[members].max()
        np.testing.assert_allclose(counts[members] / 3_000, chance, atol=0.04)


def test_any_beginning_of_a_plan_touches_the_strata_in_proportion():
    plan = plan_estimate(-np.arange(2_000.0), np.arange(2_000), 160, rng=np.random.default_rng(1))
    whole = np.bincount(plan.strata[plan.rows])
    half = np.bincount(plan.strata[plan.rows[:80]], minlength=len(whole))
    assert (abs(half - whole / 2) <= 1).all()


def test_plans_repeat_and_fit_small_pools():
    def draw(size, seed=4, count=30):
        scores = np.cos(np.arange(count, dtype=float))
        return plan_estimate(scores, np.arange(count), size, rng=np.random.default_rng(seed)).rows

    assert draw(10).tolist() == draw(10).tolist() != draw(10, seed=5).tolist()
    assert sorted(draw(100)) == list(range(30))
    assert len(draw(1)) == 1
    assert len(draw(5, count=0)) == 0
    assert len(plan_absence(np.arange(4), 0, rng=np.random.default_rng(0)).rows) == 0


def test_a_whole_sample_leaves_nothing_to_guess():
    truth = np.array([2, 5, 11])
    plan = plan_estimate(-np.arange(40.0), np.arange(40), 40, rng=np.random.default_rng(0))
    rng = np.random.default_rng(0)
    answers = answer(plan.rows, truth)
    said = estimate_left(plan, answers, asked=40, unanswered_count=0, rng=rng)
    assert (said.value, said.low, said.high, said.cost) == (0, 0, 0, 40)
    sure = plan_absence(np.arange(40), 40, rng=np.random.default_rng(0))
    certified = certify_left(sure, answer(sure.rows, truth), asked=40, unanswered_count=0)
    assert (certified.value, certified.high) == (0, 0)


def test_estimate_is_the_sampled_share_of_the_rest():
    # One stratum of 20: 3 yes among 8 sampled, so 3/8 of the other 12.
    plan = plan_absence(np.arange(20), 8, rng=np.random.default_rng(2))
    said = estimate_left(
        plan,
        answer(plan.rows, plan.rows[:3]),
        asked=8,
        unanswered_count=12,
        rng=np.random.default_rng(0),
    )
    assert said.value == pytest.approx(12 * 3 / 8)
    posterior = stats.betabinom(12, 3.1, 5.1)
    assert said.low == pytest.approx(posterior.ppf(0.025), abs=1)
    assert said.high == pytest.approx(posterior.ppf(0.975), abs=1)


def test_what_was_found_since_is_taken_off():
    plan = plan_absence(np.arange(100), 20, rng=np.random.default_rng(2))
    others = np.setdiff1d(np.arange(100), plan.rows)
    before = answer(plan.rows, plan.rows[:4])
    after = Answers(
        np.concatenate([plan.rows, others[:5], others[5:35]]),
        np.concatenate([before.values, np.ones(5, np.int8), np.full(30, -1, np.int8)]),
    )

    def say(answers):
        count = 100 - len(answers.rows)
        rng = np.random.default_rng(0)
        return estimate_left(plan, answers, asked=20, unanswered_count=count, rng=rng)

    def certify(answers):
        return certify_left(plan, answers, asked=20, unanswered_count=100 - len(answers.rows)).high

    assert say(before).value == pytest.approx(80 * 4 / 20)
    assert say(after).value == pytest.approx(80 * 4 / 20 - 5)
    assert say(after).high <= 45  # images still open
    assert certify(after) == min(certify(before) - 5, 45)


def test_images_that_the_sample_could_not_draw_count_as_positives():
    plan = plan_absence(np.arange(300), 200, rng=np.random.default_rng(2))
    answers = answer(plan.rows, np.empty(0))

    def say(count):
        rng = np.random.default_rng(0)
        sizes = {"asked": 200, "unanswered_count": count}
        return certify_left(plan, answers, **sizes), estimate_left(plan, answers, **sizes, rng=rng)

    for before, after in zip(say(100), say(2_100), strict=True):
        assert after.high == before.high + 2_000
        assert (after.value, after.low) == (before.value, before.low)
        assert "also counts 2\u202f000 images" in after.assumption
        assert "images too" not in before.assumption


def test_unsure_counts_as_yes_at_the_upper_end():
    plan = plan_absence(np.arange(500), 100, rng=np.random.default_rng(2))
    values = np.full(100, -1, np.int8)
    yes, unsure = values.copy(), values.copy()
    yes[:7], unsure[:7] = 1, 0

    def say(values):
        answers, rng = Answers(plan.rows, values), np.random.default_rng(0)
        sizes = {"asked": 100, "unanswered_count": 400}
        return certify_left(plan, answers, **sizes), estimate_left(plan, answers, **sizes, rng=rng)

    for all_no, all_yes, doubtful in zip(say(values), say(yes), say(unsure), strict=True):
        assert doubtful.high == pytest.approx(all_yes.high, rel=0.05)
        assert (doubtful.value, doubtful.low) == (all_no.value, all_no.low) == (0, 0)
        assert "7 unsure" in doubtful.assumption
        assert "unsure" not in all_yes.assumption


def test_an_unfinished_sample_counts_its_beginning_and_passes_over_open_images():
    plan = plan_absence(np.arange(50), 10, rng=np.random.default_rng(2))
    rows = plan.rows[[0, 1, 3, 7]]  # one of the first five is open; the eighth was met elsewhere
    answers = Answers(rows, np.array([1, -1, -1, 1], np.int8))
    said = certify_left(plan, answers, asked=5, unanswered_count=46)
    assert said.cost == 3
    assert said.high == largest_count(50, 3, 1) - 1 - 1


def test_the_certificate_keeps_its_word_over_every_sample_of_a_small_population():
    count, size = 12, 5
    for positives in range(count + 1):
        wrong = 0
        for sample in combinations(range(count), size):
            found = sum(row < positives for row in sample)
            wrong += positives > largest_count(count, size, found, 0.8)
        assert wrong / comb(count, size) <= 0.2 + 1e-12


def test_the_certificate_asks_no_more_than_it_must():
    # One more positive would be seen too seldom to be ruled out: the bound is the largest such.
    for found, most in ((0, largest_count(200, 30, 0)), (2, largest_count(200, 30, 2))):
        assert stats.hypergeom.cdf(found, 200, most, 30) > 0.05
        assert stats.hypergeom.cdf(found, 200, most + 1, 30) <= 0.05


def test_certificate_refuses_a_sample_by_score():
    plan = plan_estimate(-np.arange(100.0), np.arange(100), 20, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="random sample"):
        certify_left(plan, Answers.empty(), asked=0, unanswered_count=100)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.data())
def test_bounds_grow_with_yes_and_shrink_with_effort(count, data):
    sampled = data.draw(st.integers(0, count))
    yes = data.draw(st.integers(0, sampled))
    most = largest_count(count, sampled, yes)
    assert yes <= most <= count - (sampled - yes)
    if sampled < count:
        assert largest_count(count, sampled + 1, yes) <= most
    if yes < sampled:
        assert largest_count(count, sampled, yes + 1) >= most


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(0, 10**6), st.data())
def test_an_estimate_stays_within_what_is_possible(count, seed, data):
    rng = np.random.default_rng(seed)
    size = data.draw(st.integers(1, count))
    plan = plan_estimate(rng.normal(size=count), np.arange(count), size, rng=rng)
    asked = data.draw(st.integers(0, len(plan.rows)))
    truth = rng.permutation(count)[: data.draw(st.integers(0, count))]
    said = estimate_left(
        plan,
        answer(plan.rows[:asked], truth),
        asked=asked,
        unanswered_count=count - asked,
        rng=rng,
    )
    assert 0 <= said.low <= said.high <= count - asked
    if asked:
        assert said.low <= said.value <= said.high
    else:
        assert np.isnan(said.value)


# --- What a certificate bounds and costs: the table of the survey of peers


@pytest.mark.parametrize(
    ("found", "recall", "missing", "share"),
    [
        (10, 0.80, 3, 0.63),
        (10, 0.90, 2, 0.78),
        (10, 0.95, 1, 0.95),
        (50, 0.80, 13, 0.21),
        (50, 0.90, 6, 0.39),
        (50, 0.95, 3, 0.63),
        (100, 0.80, 26, 0.11),
        (100, 0.90, 12, 0.22),
        (100, 0.95, 6, 0.39),
        (200, 0.80, 51, 0.06),
        (200, 0.90, 23, 0.12),
        (200, 0.95, 11, 0.24),
        (1000, 0.80, 251, 0.012),
        (1000, 0.90, 112, 0.026),
        (1000, 0.95, 53, 0.055),
    ],
)
def test_share_of_the_pool_that_must_be_no(found, recall, missing, share):
    assert floor(found / recall + 1 - found) == missing
    pool = 1_000_000
    needed = negatives_to_stop(found, recall, pool)
    assert needed / pool == pytest.approx(1 - 0.05 ** (1 / missing), abs=1e-4)
    assert needed / pool == pytest.approx(share, abs=0.006)


def test_the_exact_test_needs_12600_negatives():
    # 20,000 images, 50 of them found first: the pool after the last find is 19,950.
    needed = negatives_to_stop(50, 0.95, 19_950)
    assert needed == pytest.approx(12_600, abs=5)
    found_first = np.concatenate([np.ones(50, np.int8), np.full(needed, -1, np.int8)])
    tails = np.array([len(found_first), needed])
    assert recall_p_value(found_first, tails, 20_000, 0.95) < 0.05
    one_less = found_first[:-1]
    assert recall_p_value(one_less, tails - 1, 20_000, 0.95) >= 0.05


def test_p_value_is_the_smallest_over_the_tails():
    said, tails = values("ynynnnn"), np.array([7, 5, 3])
    # Found 2; at 70 % recall floor(2 / 0.7 + 1 - (2 - x)) positives stood before each tail.
    by_hand = [
        stats.hypergeom.cdf(yes, 30 - (7 - tail), floor(2 / 0.7 + 1 - (2 - yes)), tail)
        for tail, yes in zip(tails.tolist(), (2, 1, 0), strict=True)
    ]
    assert recall_p_value(said, tails, 30, 0.7) == pytest.approx(min(by_hand))
    assert recall_p_value(said, tails[:0], 30, 0.7) == 1


@pytest.mark.parametrize(("sampled", "missed"), [(300, 993), (3_000, 99), (10_000, 29)])
def test_absence_with_effort(sampled, missed):
    assert int(100_000 * (1 - 0.05 ** (1 / sampled))) == missed  # of an endless collection
    # Of a finite collection a little less can be hidden: what was looked at is known.
    assert missed - 2 <= largest_count(100_000, sampled, 0) <= missed


def test_images_to_certify_is_the_first_number_that_does():
    for pool, most in ((100, 0), (100, 3), (4_000, 2)):
        needed = images_to_certify(pool, most)
        assert largest_count(pool, needed, 0) <= most < largest_count(pool, needed - 1, 0)
    assert images_to_certify(50, 50) == 0


def test_hypergeometric_tail_is_the_distribution_function():
    for yes, size, positives, sampled in [
        (0, 20, 3, 5),
        (2, 20, 9, 12),
        (4, 10, 5, 9),
        (0, 5, 5, 1),
    ]:
        assert hypergeometric_tail(yes, size, positives, sampled) == pytest.approx(
            stats.hypergeom.cdf(yes, size, positives, sampled), abs=1e-12
        )
