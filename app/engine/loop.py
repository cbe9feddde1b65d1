"""From the answers so far to the next grid: the one loop behind live searches and replays.

Round 1 is the images nearest to the opening vector (`random` alone draws it by lot). From round 2
on a head is fitted on all current answers, every image is scored, and the strategy chooses among
the unanswered ones. While nothing is answered yes and no example was uploaded there is nothing to
learn from: rounds go on down the list of images nearest to the opening. A person may ask for other
images than the strategy's (`planned`, by app/engine/detours.py); the head is the same.

Where images belong to events (app/engine/events.py), a round shows at most one of each: the one of
the highest score. Strategies see only those, and the answers to one image of an event, so none of
them knows of events.

Of an index that does not rank all its images only a shortlist is scored: the images that a strategy
can choose by score (`VectorIndex.shortlist`). Strategies that look at more are refused there.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import Answers, Opening, Value, join_openings, make_opening
from app.engine.events import first_of_each, rows_with, show_one_each, teach_one_each
from app.engine.head import Head, probabilities
from app.engine.index import VectorIndex
from app.engine.narrow import SAMPLE_ROWS
from app.engine.parts import evenly
from app.engine.strategies import (
    STRATEGIES,
    StrategyNeedsAllScores,
    UnknownStrategy,
    check_reach,
    get_strategy,
)
from app.engine.strategies.round_state import (
    EXPLORATION,
    OPENING,
    REASONS,
    Choice,
    Lesson,
    RoundState,
    smallest,
)

__all__ = [
    "REASONS",
    "STRATEGIES",
    "Answers",
    "Choice",
    "Opening",
    "Proposal",
    "StrategyNeedsAllScores",
    "UnknownStrategy",
    "Value",
    "join_openings",
    "make_opening",
    "nearest_among",
    "propose_round",
    "rank_likely",
    "round_rng",
]

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

# More than any strategy takes: `rarefind` compares 300 and a round with the answers, and where its
# second head has a say looks at 1,000. Events take the places of some.
SHORTLIST = 360
LONG_SHORTLIST = 1_060


@dataclass(frozen=True, eq=False)
class Proposal:
    """The next grid. Without a head (round 1) scores are similarities to the opening vector.

    `rows` (k,) int64 in display order; `scores` and `probabilities` (k,) float32, probabilities NaN
    without a head; `reasons`: k of REASONS. `fit_s` (fitting and scoring) and `choose_s` (with
    the second head of `rarefind`) are seconds by the caller's clock, NaN without one.
    """

    rows: Integers
    scores: Floats
    probabilities: Floats
    reasons: tuple[str, ...]
    head: Head | None
    fit_s: float
    choose_s: float


def propose_round(
    index: VectorIndex,
    answers: Answers,
    *,
    opening: Opening,
    strategy: str,
    size: int,
    round_number: int,
    rng: np.random.Generator,
    pool_rows: Integers | None = None,
    hidden_rows: Integers | None = None,
    planned: Choice | None = None,
    events: Integers | None = None,
    teach_all: bool = False,
    clock: Callable[[], float] | None = None,
) -> Proposal:
    """Choose the images of the next round; the only place that does.

    Parameters: `answers` so far; `strategy`, a name of STRATEGIES; `size` >= 0 images wanted (fewer
    are given when fewer are left); `round_number` from 1; `rng`, best from `round_rng`; `pool_rows`
    (m,) the only rows that may be shown, ascending, None for all, and `hidden_rows` (h,) of these
    not to be shown; `planned`, unanswered rows to show in place
    of the strategy's choice, in their order as far as there is room, None for that; `events` (n,)
    as in app/engine/events.py, None where each image stands by itself; `teach_all` fits the head on
    all answers, not on one image of an event; `clock`, seconds, to time the two parts.
    Never gives a row that has an answer, as long as no planned one has, nor two rows of one event.
    Raises UnknownStrategy, or StrategyNeedsAllScores where the index has none.
    Source: the loop of K. Zaher, O. Buisson, A. Joly, arXiv 2603.24480, 2026, in the reading of
    docs/algorithms.md, "The loop".
    """
    chosen = get_strategy(strategy)
    now = clock or (lambda: float("nan"))
    started = now()
    # A live search and a replay know their answers in different orders: one order for all, since
    # sums and draws depend on it.
    order = np.argsort(answers.rows)
    looked_at = None if answers.looked_at is None else answers.looked_at[order]
    answers = Answers(answers.rows[order], answers.values[order], looked_at)
    check_reach(strategy, ranks_all=index.ranks_all)
    closed = answers.rows if hidden_rows is None else np.union1d(answers.rows, hidden_rows)
    taught = answers if events is None or teach_all else teach_one_each(answers, events)
    lesson = None
    if round_number > 1:
        lesson = _find_lesson(index, taught, opening, rng, closed, pool_rows)
    head = None if lesson is None else chosen.fit(lesson)
    top = LONG_SHORTLIST if lesson is not None and lesson.has_roots else SHORTLIST
    ranking = _rank(index, head, opening, closed, pool_rows, events, size, top)
    fitted = now()
    unanswered, scores = ranking.rows, ranking.scores
    if events is not None:
        unanswered = show_one_each(unanswered, scores, events)
        scores = scores[np.searchsorted(ranking.rows, unanswered)]
    wanted = size
    size = min(size, len(unanswered))
    if planned is not None:
        # A sample goes on as it was drawn: `pool_rows` may hold fewer images than its next round.
        choice = _cut(planned, wanted, events)
    elif size == 0:
        choice = Choice(np.empty(0, np.int64), ())
    elif lesson is not None and head is not None:
        choice = chosen.choose(
            RoundState(index, taught, opening, lesson, unanswered, head, scores, size, rng)
        )
    elif chosen.opens_at_random:
        choice = Choice.of(rng.permutation(unanswered)[:size], EXPLORATION)
    else:
        choice = Choice.of(unanswered[smallest(-scores, size)], OPENING)
    shown = ranking.score(choice.rows)
    chances = np.full_like(shown, np.nan)
    if head is not None:
        shown = shown - np.float32(head.line)
        chances, head = probabilities(shown), head.at_line()
    return Proposal(
        choice.rows, shown, chances, choice.reasons, head, fitted - started, now() - fitted
    )


def round_rng(seed: int, round_number: int) -> np.random.Generator:
    """The random numbers of one round, live and in replay: undo and redo give the same grid.

    Parameters: `seed` >= 0 of the search or the run; `round_number` >= 0, live rounds count from 1.
    Returns a fresh generator; the streams of different pairs do not overlap. Raises ValueError for
    a negative number.
    Source: numpy's SeedSequence, which mixes both numbers into one state.
    """
    return np.random.default_rng([seed, round_number])


def rank_likely(
    index: VectorIndex, answers: Answers, head: Head, k: int, *, rows: Integers | None = None
) -> tuple[Integers, Floats, Floats]:
    """The `k` images without an answer that a stored head holds most likely, best first.

    Parameters: `answers` so far; `head` (d,), fitted on vectors of this embedder; `k` >= 0; `rows`
    (r,) int64 ascending, the only ones allowed, None for all. Returns rows int64, scores float32
    and probabilities float32 in 0..1, each (k',), ties by row number; k' is `k` or the number of
    unanswered images if that is smaller.
    Source: ranking by probability, S. E. Robertson, "The probability ranking principle in IR",
    Journal of Documentation 33, 1977.
    """
    found, scores = index.shortlist(
        head.weights, head.bias, top=k, line=0, closed=answers.rows, rows=rows
    )
    order = smallest(-scores, k)
    return found[order], scores[order], probabilities(scores[order])


def nearest_among(index: VectorIndex, row: int, rows: Integers, k: int) -> tuple[Integers, Floats]:
    """The `k` of `rows` most similar to one image, itself left out, most similar first.

    Parameters: `row` of the image, 0..n-1; `rows` (r,) int64, all positives or all negatives;
    `k` >= 0. Returns rows (k',) int64 and similarities (k',) float32, cosines in -1..1; k' is `k`
    or the number of others if that is smaller.
    Source: exact nearest neighbours by cosine, from `VectorIndex.nearest`.
    """
    others = rows[rows != row]
    similarities, rows = index.nearest(index.vectors[row : row + 1], k, rows=others)
    return rows[0], similarities[0]


def _cut(planned: Choice, size: int, events: Integers | None) -> Choice:
    """As much of a plan as there is room for, one image of each event."""
    places = np.arange(len(planned.rows))
    if events is not None:
        places = first_of_each(planned.rows, events)
    places = places[:size]
    return Choice(planned.rows[places], tuple(planned.reasons[place] for place in places.tolist()))


@dataclass(frozen=True, eq=False)
class _Ranking:
    """Rows that may be shown, ascending, their scores, and how any row's score is told."""

    rows: Integers
    scores: Floats
    score: Callable[[Integers], Floats]


def _find_lesson(
    index: VectorIndex,
    answers: Answers,
    opening: Opening,
    rng: np.random.Generator,
    closed: Integers,
    pool_rows: Integers | None,
) -> Lesson | None:
    """What a head can be fitted on, None with nothing to learn from."""
    positives = np.concatenate([index.read(answers.positives), opening.examples])
    if len(positives) == 0:
        return None
    negatives = index.read(answers.negatives)
    others = pool_rows
    if not index.ranks_all:
        others = index.sample_rows
        if pool_rows is not None:
            others = pool_rows[evenly(len(pool_rows), SAMPLE_ROWS)]
    unlabelled = _open_rows(index, closed, others)
    if len(negatives) + len(unlabelled) == 0:
        return None
    return Lesson(index, positives, negatives, unlabelled, rng)


def _rank(
    index: VectorIndex,
    head: Head | None,
    opening: Opening,
    closed: Integers,
    pool_rows: Integers | None,
    events: Integers | None,
    size: int,
    top: int,
) -> _Ranking:
    """Score what may be shown: by the head, or without one by the likeness to the opening."""
    weights, bias = (opening.vector, 0.0) if head is None else (head.weights, head.bias)
    if index.ranks_all:
        scores = index.scores(weights, bias)
        rows = _open_rows(index, closed, pool_rows)
        return _Ranking(rows, scores[rows], lambda some: scores[some])

    def score(some: Integers) -> Floats:
        return index.read(some) @ weights + np.float32(bias)

    line = 0 if head is None else size  # likeness to the opening has no boundary
    rows, scores = index.shortlist(weights, bias, top=top, line=line, closed=closed, rows=pool_rows)
    if events is not None:  # the likeliest image of an event stands for it, wherever it is
        rows = _open_rows(index, closed, rows_with(rows, events))
        if pool_rows is not None:
            rows = np.intersect1d(rows, pool_rows, assume_unique=True)
        scores = score(rows)
    return _Ranking(rows, scores, score)


def _open_rows(index: VectorIndex, closed: Integers, allowed: Integers | None) -> Integers:
    """Rows that are not closed, among the allowed ones (None for all), ascending."""
    if allowed is not None and len(allowed) == 0:
        return allowed
    if allowed is not None and len(allowed) < index.count // 8:
        places = np.minimum(np.searchsorted(allowed, closed), len(allowed) - 1)
        return np.delete(allowed, places[allowed[places] == closed])
    is_open = np.full(index.count, allowed is None)
    if allowed is not None:
        is_open[allowed] = True
    is_open[closed] = False
    return np.flatnonzero(is_open)
