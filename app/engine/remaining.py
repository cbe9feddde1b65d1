"""How many images of the target remain: heuristics, estimates and certificates.

A heuristic promises nothing. An estimate is right if its model holds. A certificate is a
probability over the draw of a random sample, whatever the head can see. Each says its interval,
its assumption and what it cost, never a bare number: docs/algorithms.md, "How many are left".

Bounds that look further than an interval (what a certificate would cost) stand at the end.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaincinv, expit, gammaln, ndtri

from app.engine.answers import Answers, Value
from app.engine.numerals import plural

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]
Doubles = NDArray[np.float64]
Values = NDArray[np.int8]

Kind = Literal["heuristic", "estimate", "certificate"]
Quantity = Literal["left", "share"]

LEVEL = 0.95
WINDOW = 50  # latest answers that a yield is taken from
SMALLEST_STRATUM = 25  # images
DRAWS = 4_000  # of the posterior, for an interval
POOL_WEIGHT = 500.0  # answers that all unanswered images together count as, in a calibration
POOL_POINTS = 2_000  # of them that are looked at, evenly by rank
PRIOR_WEIGHT = 0.02
DOUBT = 1.0  # standard deviation of a shift beyond what answers tell: a factor of e where rare
SCORE_BINS = 1_000
LINES = 400  # draws of a calibration
PRIOR = 0.1  # pseudo-counts of yes and of no in each stratum, as Navine et al. 2024
GRID = 2_000  # numbers of images left at which a yield curve is judged, at most


@dataclass(frozen=True)
class Statement:
    """What is said of the images that remain, with all that is needed to read it.

    `name` and `title` say by which method. `quantity` is what the three numbers count: "left",
    images of the target among those without an answer, or "share", the share of yes (0..1) among
    the next answers. `value` is the best guess, NaN where the method gives none; the truth is
    between `low` and `high` with probability `level`, if `assumption` holds. `cost`: answers that
    were given for this statement alone, 0 where it reads what the search asked anyway.
    """

    name: str
    title: str
    kind: Kind
    quantity: Quantity
    value: float
    low: float
    high: float
    level: float
    assumption: str
    cost: int


# --- Heuristics ---------------------------------------------------------------------------------


def count_run(values: Values) -> int:
    """How many of the latest answers are no, without a yes between; unsure ones are skipped.

    Parameters: `values` (k,) int8 of Value, in the order they were given. Returns 0..k.
    Source: the consecutive irrelevant records of ASReview (R. van de Schoot et al., Nature Machine
    Intelligence 3, 2021).
    """
    sure = values[values != Value.UNSURE]
    yes = np.flatnonzero(sure == Value.YES)
    return len(sure) - (int(yes[-1]) + 1 if len(yes) else 0)


def run_of_negatives(values: Values, *, level: float = LEVEL) -> Statement:
    """What the latest run of no says of the next answers: a share of yes from 0 to 1 - a^(1/run).

    Parameters: `values` (k,) int8 of Value, in the order they were given; `level` in 0..1. The
    share is 0..1; its value is NaN right after a yes.
    Source: the exact bound for no success in n trials, J. A. Hanley, A. Lippman-Hand, "If nothing
    goes wrong, is everything all right?", JAMA 249, 1983.
    """
    run = count_run(values)
    return Statement(
        "run-of-negatives",
        f"{plural(run, 'answer')} of no in a row",
        "heuristic",
        "share",
        0.0 if run else float("nan"),
        0.0,
        1 - (1 - level) ** (1 / run) if run else 1.0,
        level,
        "The next images are like the latest ones; it says nothing of looks not seen yet.",
        0,
    )


def recent_yield(values: Values, *, window: int = WINDOW, level: float = LEVEL) -> Statement:
    """Share of yes among the latest `window` answers, with its exact binomial interval.

    Parameters: `values` (k,) int8 of Value, in the order they were given, unsure ones skipped;
    `window` >= 1 answers; `level` in 0..1. The share is 0..1, NaN (from 0 to 1) without an answer.
    Source: C. J. Clopper, E. S. Pearson, "The use of confidence or fiducial limits", Biometrika 26,
    1934.
    """
    latest = values[values != Value.UNSURE][-window:]
    yes = int((latest == Value.YES).sum())
    low, high = binomial_interval(yes, len(latest), level)
    return Statement(
        "recent-yield",
        f"Yes among the last {plural(len(latest), 'answer')}",
        "heuristic",
        "share",
        yes / len(latest) if len(latest) else float("nan"),
        low,
        high,
        level,
        "The next images are like the latest ones; it says nothing of looks not seen yet.",
        0,
    )


def yield_curve(values: Values, unanswered_count: int, *, level: float = LEVEL) -> Statement:
    """Images left, if finds go on thinning out: each image is as likely as any other to turn up.

    With n answers, r finds at t_1..t_r and L left, the likelihood of L, the rate profiled out, is
    (r + L)! / L! (sum t + n L)^-r; the interval is where it is not much below its best.
    Parameters: `values` (k,) int8 of Value, in the order they were given (unsure counts as no: it
    took its turn); `unanswered_count` >= 0 images; `level` in 0..1.
    Source: Z. Jelinski, P. B. Moranda, "Software reliability research", 1972, for faults in a
    program. As a rule to stop by it is near M. Stevenson, R. Bin-Hezam, 10.1145/3631990, 2023.
    """
    times = np.flatnonzero(values == Value.YES) + 1.0
    r = len(times)
    value, low, high = float("nan"), 0.0, float(unanswered_count)
    if r:
        left = np.unique(np.geomspace(1, unanswered_count + 1, GRID).round()) - 1
        likelihoods = (
            gammaln(r + left + 1) - gammaln(left + 1) - r * np.log(times.sum() + len(values) * left)
        )
        best = int(np.argmax(likelihoods))
        near = left[likelihoods >= likelihoods[best] - _normal(level) ** 2 / 2]
        value, low, high = float(left[best]), float(near[0]), float(near[-1])
    return Statement(
        "yield-curve",
        "Finds thinning out",
        "heuristic",
        "left",
        value,
        low,
        high,
        level,
        "Every image of the target is as easy to find as the next. The easy ones come first, so "
        "more are left.",
        0,
    )


# --- Estimates from what the search asked anyway ------------------------------------------------


@dataclass(frozen=True, eq=False)
class Calibration:
    """Chance of yes at a score: sigmoid(slope * score + shift), slope >= 0.

    `covariance` (2, 2) float64 of (slope, shift), from the curvature of the likelihood and from
    doubt that chances follow a line at all.
    """

    slope: float
    shift: float
    covariance: Doubles

    def chances(self, scores: Floats) -> Doubles:
        """Chances in 0..1, (n,) float64, of scores (n,)."""
        return np.asarray(expit(self.slope * np.asarray(scores, np.float64) + self.shift))

    def draws(self, scores: Floats, count: int, *, rng: np.random.Generator) -> Doubles:
        """`count` versions of the chances, (count, n) float64, as far as the line is not known.

        Source: the normal approximation of a posterior, A. Gelman et al., "Bayesian Data Analysis",
        2013, chapter 4.
        """
        lines = rng.multivariate_normal([self.slope, self.shift], self.covariance, size=count)
        slopes = np.maximum(lines[:, :1], 0.0)
        return np.asarray(expit(slopes * np.asarray(scores, np.float64) + lines[:, 1:]))


def calibrate(
    shown_scores: Floats, values: Values, unanswered_scores: Floats
) -> Calibration | None:
    """Learn what a score is worth: from images whose score was known before their answer.

    Those were all chosen for their scores, so they say little of low ones. There rarity helps: the
    unanswered images count as no, all together as much as 500 answers. That takes away a little
    from the chances of a target that is not rare. The shift is in doubt beyond what answers tell:
    sums were off by a factor of e, up or down, in replays against known labels.
    Parameters: `shown_scores` (k,), each the score (0 is the boundary) by the head that chose its
    image, rounds without a head left out; `values` (k,) int8 of Value, what was answered then,
    unsure ones skipped; `unanswered_scores` (u,) by the current head. Returns None before the first
    yes among them: nothing but the prior would say at which score chances rise, and an interval
    would go from none of the images to nearly all.
    Source: J. Platt, "Probabilistic outputs for support vector machines", 1999; scores from before
    the answer as A. P. Dawid, "The prequential approach", 1984. A weak prior keeps it near the
    head's own sigmoid, in place of Platt's targets, which would give every image a chance.
    """
    if not (values == Value.YES).any():
        return None
    sure = values != Value.UNSURE
    pool = np.sort(np.asarray(unanswered_scores, np.float64))
    step = len(pool) // POOL_POINTS + 1
    pool = pool[step // 2 :: step]
    scores = np.concatenate([np.asarray(shown_scores, np.float64)[sure], pool])
    is_yes = np.concatenate([values[sure] == Value.YES, np.zeros(len(pool), bool)])
    weights = np.concatenate([np.ones(int(sure.sum())), np.full(len(pool), POOL_WEIGHT)])
    weights[len(weights) - len(pool) :] /= max(len(pool), 1)
    design = np.stack([scores, np.ones(len(scores))])
    own = np.array([1.0, 0.0])

    def loss(line: Doubles) -> tuple[float, Doubles]:
        logits = line @ design
        cost = weights @ (np.logaddexp(0, logits) - is_yes * logits)
        cost += PRIOR_WEIGHT / 2 * ((line - own) ** 2).sum()
        slope = design @ (weights * (expit(logits) - is_yes)) + PRIOR_WEIGHT * (line - own)
        return float(cost), slope

    line = minimize(loss, own, jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)]).x
    chances = expit(line @ design)
    curvature = (design * (weights * chances * (1 - chances))) @ design.T
    covariance = np.linalg.inv(curvature + PRIOR_WEIGHT * np.eye(2)) + np.diag([0.0, DOUBT**2])
    return Calibration(float(line[0]), float(line[1]), covariance)


def calibrated_sum(
    scores: Floats, calibration: Calibration, *, rng: np.random.Generator, level: float = LEVEL
) -> Statement:
    """Images left as the sum of the calibrated chances of all unanswered ones.

    The interval draws lines of the calibration, and from the sum of each a number of images.
    Parameters: `scores` (u,) of the unanswered images by the current head; `calibration` of the
    same search; `rng` draws the interval; `level` in 0..1. Values are 0..u images.
    Source: the Quant rule of E. Yang, D. D. Lewis, O. Frieder, "Heuristic stopping rules for
    technology-assisted review", arXiv 2106.09871, 2021; their interval takes the chances as known.
    """
    counts, edges = np.histogram(scores, bins=SCORE_BINS)  # a collection's scores, told in short
    centres = (edges[:-1] + edges[1:]) / 2
    sums = calibration.draws(centres, LINES, rng=rng) @ counts
    low, high = np.quantile(rng.poisson(sums), [(1 - level) / 2, (1 + level) / 2])
    value = float(calibration.chances(scores).sum())
    return Statement(
        "calibrated-sum",
        "Sum of chances",
        "estimate",
        "left",
        value,
        min(float(low), value),
        min(max(float(high), value), float(len(scores))),
        level,
        "An image's chance follows its score, also far below the scores shown so far; the interval "
        "is as wide as that was off in trials. Looks that the search cannot see are not in it.",
        0,
    )


def chapman(
    found_count: int, seen_again: int, new: int, unanswered_count: int, *, level: float = LEVEL
) -> Statement:
    """Images left by capture and recapture: the search is one catch, a second look another.

    The second look ranks all images, answered or not, by something else (another embedder, another
    opening) and takes the first so many: `seen_again` of them were positives already, `new` became
    positives. The share of them that the search had found says what share of all it has found; the
    interval is the exact one of that share.
    Parameters: `found_count` >= 0 positives before the look; 0 <= `seen_again` <= `found_count`;
    `new` >= 0; `unanswered_count` >= 0 images after the look; `level` in 0..1.
    Source: D. G. Chapman, "Some properties of the hypergeometric distribution with applications to
    zoological sample censuses", 1951. Heads that like the same images make it too low: read it as
    a lower bound.
    """
    second = seen_again + new
    total = (found_count + 1) * (second + 1) / (seen_again + 1) - 1
    left = [total - found_count - new]
    for share in reversed(binomial_interval(seen_again, second, level)):
        left.append(found_count / share - found_count - new if share else math.inf)
    value, low, high = (float(np.clip(one, 0, unanswered_count)) for one in left)
    return Statement(
        "two-looks",
        "Two looks compared",
        "estimate",
        "left",
        value,
        min(low, value),
        max(high, value),
        level,
        "Both looks find images independently of each other; they seldom do, so there are likely "
        "more.",
        second,
    )


# --- Samples ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SamplePlan:
    """Which images to ask about, and how likely each one was to be drawn.

    `frame` (u,) int64, ascending: the rows without an answer when the plan was made, and `strata`
    (u,) int64 their stratum, 0 with the highest scores. `rows` (s,) int64: the sample, in the order
    to show it, so that any beginning of it is a sample too. `chances` (s,) float64 in 0..1: each
    one's chance to be in the whole sample; within a stratum all images of the frame have the same.
    """

    frame: Integers
    strata: Integers
    rows: Integers
    chances: NDArray[np.float64]


def plan_estimate(
    scores: Floats, unanswered: Integers, size: int, *, rng: np.random.Generator
) -> SamplePlan:
    """A score-stratified sample: few images of many low scores, many of few high ones.

    Strata go by rank, each twice as deep as all before it; a stratum of m images gets a share of
    the sample in proportion to the root of m, and at least one. That is near the best allocation
    where chances fall with the rank, and leaves no image without a chance.
    Parameters: `scores` (u,) of the head, aligned with `unanswered` (u,) int64 rows, ascending;
    `size` >= 1 images, of which min(size, u) are drawn; `rng` draws.
    Source: A. A. Navine et al., "All thresholds barred: direct estimation of call density in
    bioacoustic data", arXiv 2402.15360, 2024; allocation after J. Neyman, 1934.
    """
    count = len(unanswered)
    size = min(size, count)
    order = np.argsort(-np.asarray(scores), kind="stable")
    edges = [0]
    while 2 * max(edges[-1], SMALLEST_STRATUM) < count and len(edges) < size:
        edges.append(max(2 * edges[-1], SMALLEST_STRATUM))
    edges.append(count)
    strata = np.empty(count, dtype=np.int64)
    for number, (start, stop) in enumerate(pairwise(edges)):
        strata[order[start:stop]] = number
    return _draw(unanswered, strata, _allocate(np.diff(edges), size), rng)


def plan_absence(unanswered: Integers, size: int, *, rng: np.random.Generator) -> SamplePlan:
    """A simple random sample of the images without an answer: one stratum.

    Parameters: `unanswered` (u,) int64 rows, ascending; `size` >= 0, of which min(size, u) are
    drawn; `rng` draws.
    Source: simple random sampling without replacement, W. G. Cochran, "Sampling Techniques", 1977.
    """
    size = min(size, len(unanswered))
    return _draw(unanswered, np.zeros(len(unanswered), np.int64), np.array([size]), rng)


def estimate_left(
    plan: SamplePlan,
    answers: Answers,
    *,
    asked: int,
    unanswered_count: int,
    rng: np.random.Generator,
    level: float = LEVEL,
) -> Statement:
    """Images left now, from the first `asked` images of a plan: in each stratum the sampled share.

    Positives found since the plan was made, in the sample or outside, are counted exactly and taken
    off. Images of the sample left open are passed over; the upper end takes unsure for yes. A
    stratum of which nothing is answered yet takes its value from the strata beside it and keeps its
    whole doubt. Of images that the frame does not hold (they joined later, or lost their answer)
    nothing is known: the upper end counts every one.
    Parameters: `plan`; `answers` now; `asked` 0..s, how many of `plan.rows` were shown as the
    sample; `unanswered_count` >= 0 images without an answer now, in the frame or not; `rng` draws
    the interval (the same numbers, the same interval); `level` in 0..1.
    Source: D. G. Horvitz, D. J. Thompson, 1952, for the value; for the interval the Beta posterior
    in each stratum of Navine et al. 2024 with binomial draws for the finite rest.
    """
    tally = _tally(plan, answers, asked)
    sampled, yes = tally.sampled, tally.yes
    rest = tally.sizes - sampled  # images that the sample speaks for
    seen = np.flatnonzero(sampled)
    places = np.arange(len(sampled))
    rates = np.interp(places, seen, yes[seen] / sampled[seen]) if len(seen) else places * np.nan

    def draw_left(yes: Integers) -> Integers:
        chances = rng.beta(yes + PRIOR, sampled - yes + PRIOR, size=(DRAWS, len(sampled)))
        drawn = rng.binomial(rest, chances)
        return np.asarray(np.clip(drawn - tally.found_outside, 0, tally.still_open).sum(axis=1))

    low = float(np.quantile(draw_left(yes), (1 - level) / 2))
    high = float(np.quantile(draw_left(yes + tally.unsure), (1 + level) / 2))
    value = float(np.clip(rest * rates - tally.found_outside, 0, tally.still_open).sum())
    outside = unanswered_count - int(tally.still_open.sum())
    return Statement(
        "score-sample",
        f"Sample of {plural(int(sampled.sum()), 'image')} by score",
        "estimate",
        "left",
        float(np.clip(value, low, max(low, high))),
        low,
        max(low, high) + outside,
        level,
        "Where the search holds hardly anything likely, there is hardly anything: each of the few "
        "images drawn from there speaks for many."
        + _describe_worst_case(int(tally.unsure.sum()), outside),
        int(sampled.sum()),
    )


def certify_left(
    plan: SamplePlan,
    answers: Answers,
    *,
    asked: int,
    unanswered_count: int,
    level: float = LEVEL,
) -> Statement:
    """Images left now at most, from a simple random sample: right whatever the head can see.

    The bound is the largest number of positives in the frame of which chance would bring so few
    into the sample with probability 1 - `level`, unsure ones taken for yes. Positives found since
    are taken off. Images that the frame does not hold (they joined later, or lost their answer)
    count as positives, every one.
    Parameters: `plan` of `plan_absence` (one stratum, otherwise ValueError); `answers` now; `asked`
    0..s, how many of `plan.rows` were shown; `unanswered_count` >= 0 images without an answer now,
    in the frame or not; `level` in 0..1.
    Source: the exact hypergeometric bound of H. S. Konijn, "Statistical Theory of Sample Survey
    Design and Analysis", 1973; in document review, the elusion test.
    """
    if plan.strata.any():
        raise ValueError("a certificate needs a simple random sample, not one by score")
    tally = _tally(plan, answers, asked)
    size, sampled, yes, unsure, found, still_open = (
        int(n[0])
        for n in (
            tally.sizes,
            tally.sampled,
            tally.yes,
            tally.unsure,
            tally.found_outside,
            tally.still_open,
        )
    )
    most = largest_count(size, sampled, yes + unsure, level) - yes - unsure
    guess = yes / sampled * (size - sampled) if sampled else float("nan")
    high = float(min(max(most - found, 0), still_open))
    outside = unanswered_count - still_open
    return Statement(
        "random-sample",
        f"{yes} of {plural(sampled, 'image')} drawn at random",
        "certificate",
        "left",
        float(np.clip(guess - found, 0, high)),
        0.0,
        high + outside,
        level,
        "The images were drawn at random and answered without mistakes."
        + _describe_worst_case(unsure, outside),
        sampled,
    )


# --- What a certificate bounds and costs --------------------------------------------------------


def largest_count(size: int, sampled: int, yes: int, level: float = LEVEL) -> int:
    """The most positives that `size` images can hold if `yes` of `sampled` random ones are.

    The largest M for which P(X <= yes) > 1 - level, X hypergeometric.
    Parameters: 0 <= `yes` <= `sampled` <= `size` images; `level` in 0..1. Returns yes..size.
    Source: Konijn 1973, by bisection: the probability falls with M.
    """
    least, most = yes, size - (sampled - yes)
    while least < most:
        middle = (least + most + 1) // 2
        if hypergeometric_tail(yes, size, middle, sampled) > 1 - level:
            least = middle
        else:
            most = middle - 1
    return least


def images_to_certify(unanswered_count: int, most_left: int, *, level: float = LEVEL) -> int:
    """Random images that must all be no before at most `most_left` can be left.

    Parameters: `unanswered_count` >= 0; `most_left` >= 0 images; `level` in 0..1. Returns
    0..unanswered_count.
    Source: the bound of `certify_left` turned round.
    """
    least, most = 0, unanswered_count
    while least < most:
        middle = (least + most) // 2
        if largest_count(unanswered_count, middle, 0, level) <= most_left:
            most = middle
        else:
            least = middle + 1
    return least


def recall_p_value(
    values: Values, tails: Integers, image_count: int, recall: float, found_before: int = 0
) -> float:
    """The chance to see no more positives at the end of a search if `recall` was not reached.

    For a tail of t answers with x yes, images of the tail are taken as drawn at random from the
    images left before it, of which k = floor(r / recall + 1 - (r - x)) would be positive. The
    smallest over the tails is given, as its authors do; it looks more than once, so it is a little
    too small.
    Parameters: `values` (n,) int8 of Value, in the order they were given; `tails` (m,) lengths,
    1..n; `image_count` N >= n + `found_before`; `found_before` >= 0 examples that opened the
    search; `recall` in 0..1. Returns 0..1, 1 without a tail.
    Source: M. Callaghan, F. Mueller-Hansen, "Statistical stopping criteria for automated screening
    in systematic reviews", Systematic Reviews 9, 2020, 10.1186/s13643-020-01521-4.
    """
    is_yes = values == Value.YES
    found = found_before + int(is_yes.sum())
    n = found_before + len(values)
    in_tail = np.cumsum(is_yes[::-1])
    smallest = 1.0
    for tail in tails.tolist():
        yes = int(in_tail[tail - 1])
        pool = image_count - (n - tail)
        missing = math.floor(found / recall + 1 - (found - yes))
        smallest = min(smallest, hypergeometric_tail(yes, pool, min(missing, pool), tail))
    return smallest


def negatives_to_stop(found: int, recall: float, pool: int, *, level: float = LEVEL) -> int | None:
    """Answers of no in a row after the last find before `recall_p_value` falls below 1 - level.

    Parameters: `found` >= 1 positives; `recall` and `level` in 0..1; `pool` >= 0 images without an
    answer after the last find. Returns 1..pool; 0 when more would have to be missing than the pool
    holds, so that the goal is reached; None when not even all of the pool would do.
    Source: Callaghan, Mueller-Hansen 2020. For a large pool near pool * (1 - a^(1/k)), k = floor(
    found / recall + 1 - found).
    """
    missing = math.floor(found / recall + 1 - found)
    if missing > pool:
        return 0
    least, most = 1, pool
    while least < most:
        middle = (least + most) // 2
        if hypergeometric_tail(0, pool, missing, middle) < 1 - level:
            most = middle
        else:
            least = middle + 1
    return least if hypergeometric_tail(0, pool, missing, least) < 1 - level else None


def hypergeometric_tail(yes: int, size: int, positives: int, sampled: int) -> float:
    """P(X <= yes) when `sampled` of `size` images are drawn and `positives` of all are yes.

    Parameters: whole numbers >= 0, `positives` and `sampled` at most `size`. Returns 0..1.
    Source: the hypergeometric distribution, in logarithms.
    """
    counts = np.arange(max(0, sampled - (size - positives)), min(yes, sampled, positives) + 1)
    if not len(counts):
        return 0.0
    logs = (
        _log_choose(positives, counts)
        + _log_choose(size - positives, sampled - counts)
        - _log_choose(size, sampled)
    )
    return min(float(np.exp(logs).sum()), 1.0)


def binomial_interval(yes: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact two-sided interval of a share, 0..1 each; (0, 1) without a trial.

    Parameters: 0 <= `yes` <= `count`; `level` in 0..1. Source: Clopper, Pearson 1934.
    """
    tail = (1 - level) / 2
    low = float(betaincinv(yes, count - yes + 1, tail)) if yes else 0.0
    high = float(betaincinv(yes + 1, count - yes, 1 - tail)) if yes < count else 1.0
    return low, high


@dataclass(frozen=True, eq=False)
class _Tally:
    """A plan as it stands, (h,) int64 a stratum each."""

    sizes: Integers
    sampled: Integers  # answered as the sample
    yes: Integers  # of them
    unsure: Integers  # of them
    found_outside: Integers  # positives of the frame that the sample did not ask about
    still_open: Integers


def _tally(plan: SamplePlan, answers: Answers, asked: int) -> _Tally:
    strata_count = int(plan.strata.max()) + 1 if len(plan.strata) else 1
    in_frame = np.isin(answers.rows, plan.frame)
    rows, is_yes = answers.rows[in_frame], answers.values[in_frame] == Value.YES
    strata = plan.strata[np.searchsorted(plan.frame, rows)]
    is_sample = np.isin(rows, plan.rows[:asked])

    def count(chosen: NDArray[np.bool_]) -> Integers:
        return np.bincount(strata[chosen], minlength=strata_count)

    sizes = np.bincount(plan.strata, minlength=strata_count)
    return _Tally(
        sizes,
        count(is_sample),
        count(is_sample & is_yes),
        count(is_sample & (answers.values[in_frame] == Value.UNSURE)),
        count(~is_sample & is_yes),
        sizes - np.bincount(strata, minlength=strata_count),
    )


def _describe_worst_case(unsure: int, outside: int) -> str:
    """What the upper end of a sample takes for positives without knowing; empty if nothing."""
    words = ""
    if unsure:
        words = f" The upper end takes {plural(unsure, 'unsure answer')} for yes."
    if outside:
        words += (
            f" The upper end also counts {plural(outside, 'image')} that the sample could not "
            "draw: joined later, or without an answer since."
        )
    return words


def _draw(
    unanswered: Integers, strata: Integers, sizes: Integers, rng: np.random.Generator
) -> SamplePlan:
    """So many of each stratum; the order spreads each stratum evenly over the sample."""
    rows, turns, chances = [], [], []
    for number, size in enumerate(sizes.tolist()):
        members = unanswered[strata == number]
        rows.append(rng.permutation(members)[:size])
        turns.append((np.arange(size) + rng.random(size)) / max(size, 1))
        chances.append(np.full(size, size / max(len(members), 1)))
    order = np.argsort(np.concatenate(turns), kind="stable")
    return SamplePlan(
        unanswered, strata, np.concatenate(rows)[order], np.concatenate(chances)[order]
    )


def _allocate(sizes: Integers, wanted: int) -> Integers:
    """Shares of `wanted` by the root of each size, at least 1 and at most all of it.

    One at a time to whoever is furthest below its share: D'Hondt's divisors.
    """
    given = np.minimum(sizes, 1)
    for _ in range(wanted - int(given.sum())):
        quotients = np.where(given < sizes, np.sqrt(sizes) / (given + 1), -1.0)
        given[int(np.argmax(quotients))] += 1
    return given


def _log_choose(n: int, k: NDArray[np.integer] | int) -> NDArray[np.float64]:
    k = np.asarray(k)
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))


def _normal(level: float) -> float:
    """The normal quantile that leaves (1 - level) / 2 above."""
    return float(ndtri((1 + level) / 2))
