"""Events: images of one burst or track, or near-duplicates, which count as one sighting.

Which rows belong together is said by `events` (n,) int64: the lowest row of each row's event, so a
row alone has its own number. A round shows one image of an event; an answer mostly holds for all of
them; a head is fitted on one of them, or the longest bursts would outvote the others.
"""

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import Answers, Value

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

CHUNK_ROWS = 16_384


def show_one_each(rows: Integers, keys: Floats, events: Integers) -> Integers:
    """Of each event the row with the largest key, ties by row number.

    Parameters: `rows` (u,) int64, ascending; `keys` (u,) float32 without NaN, one for each of them;
    `events` (n,). Returns (e,) int64, ascending.
    Source: an event is as likely as its likeliest image: the bag of T. Dietterich et al., "Solving
    the multiple instance problem with axis-parallel rectangles", Artificial Intelligence 89, 1997.
    """
    own = events[rows]
    best = np.full(len(events), -np.inf, np.float32)
    np.maximum.at(best, own, keys)
    is_best = keys == best[own]
    rows, own = rows[is_best], own[is_best]
    first = np.empty(len(events), np.int64)
    first[own[::-1]] = rows[::-1]  # the last written stays: the lowest row
    chosen: Integers = rows[first[own] == rows]
    return chosen


def first_of_each(rows: Integers, events: Integers) -> Integers:
    """Places in `rows` (k,) of those that are the first of their event, ascending.

    Parameters: `rows`, in any order; `events` (n,). Returns (e,) int64.
    Source: none; one place of a round for one event.
    """
    return np.sort(np.unique(events[rows], return_index=True)[1])


def rows_with(rows: Integers, events: Integers) -> Integers:
    """All rows of the events that `rows` belong to, ascending.

    Parameters: `rows` (k,); `events` (n,). Returns (m,) int64, `rows` among them.
    Source: none; membership.
    """
    is_theirs = np.zeros(len(events), bool)
    is_theirs[events[rows]] = True
    return np.flatnonzero(is_theirs[events])


def teach_one_each(answers: Answers, events: Integers) -> Answers:
    """Of each event one image of each answer: one that was looked at if there is one, then the
    lowest row.

    An event all of whose images have one answer gives one image; one whose images were answered
    apart gives a yes and a no.
    Parameters: `answers`; `events` (n,). Returns some of the answers, in their order.
    Source: frames of one event are not independent; `docs/algorithms.md`, "Events".
    """
    looked_at = np.ones(len(answers.rows), bool)
    if answers.looked_at is not None:
        looked_at = answers.looked_at
    own = events[answers.rows]
    order = np.lexsort((answers.rows, ~looked_at, answers.values, own))
    own, values = own[order], answers.values[order]
    is_first = np.ones(len(order), bool)
    is_first[1:] = (own[1:] != own[:-1]) | (values[1:] != values[:-1])
    kept = np.sort(order[is_first])
    return Answers(answers.rows[kept], answers.values[kept], looked_at[kept])


def answer_by_event(answers: Answers, events: Integers) -> Answers:
    """The answers of events: yes if any image of it is, else no if any is, else unsure.

    Parameters: `answers`; `events` (n,). Returns answers on the lowest row of each event.
    Source: the bag's label of Dietterich et al. 1997, as in `show_one_each`.
    """
    own, places = np.unique(events[answers.rows], return_inverse=True)
    values = np.full(len(own), Value.UNSURE, np.int8)
    for value in (Value.NO, Value.YES):
        values[places[answers.values == value]] = value
    return Answers(own, values)


def spread_over_events(
    answers: Answers,
    rows: Integers,
    values: NDArray[np.int8],
    events: Integers,
    pool_rows: Integers | None,
) -> Answers:
    """Answers to shown rows, each given to all images of its event that may be shown.

    Parameters: `answers` so far; `rows` (k,) int64, one of an event, and `values` (k,) int8 of
    Value; `events` (n,); `pool_rows` (m,) int64, None for all. Returns all answers, the shown ones
    before those that came along; what has an answer keeps it.
    Source: none; what a person's answer for a whole event does.
    """
    along = rows_with(rows, events)
    given = np.empty(len(events), np.int8)
    given[events[rows]] = values
    is_new = np.ones(len(events), bool)
    if pool_rows is not None:
        is_new[:] = False
        is_new[pool_rows] = True
    is_new[answers.rows] = is_new[rows] = False
    along = along[is_new[along]]
    before = answers.looked_at
    if before is None:
        before = np.ones(len(answers.rows), bool)
    return Answers(
        np.concatenate([answers.rows, rows, along]),
        np.concatenate([answers.values, values, given[events[along]]]),
        np.concatenate([before, np.ones(len(rows), bool), np.zeros(len(along), bool)]),
    )


def group_alike(
    vectors: Floats,
    rows: Integers,
    is_apart: NDArray[np.bool_],
    *,
    centre: Floats,
    least: float,
    most: int,
) -> Integers:
    """Runs of images that are nearly the same as the first of their run.

    Parameters: `vectors` (n, d) float32 unit rows; `rows` (k,) int64 in the order of their files;
    `is_apart` (k,) bool, whether an image can't belong with the one before it (another place, a
    long time after); `centre` (d,) float32, the mean of `vectors`; `least` in -1..1, the cosine to
    the first of a run, seen from the centre: what all images of a collection have in common makes
    none alike, and some embedders give every pair of photographs a cosine near 1; `most` >= 1
    images of a run. Returns (k,) int64, the number of each one's run, not falling.
    Source: the leader algorithm of J. A. Hartigan, "Clustering Algorithms", 1975, with runs in the
    place of clusters: like the first, and not only like the one before, so that no run drifts.
    """
    starts = is_apart.copy()
    starts[:1] = True
    for start in range(0, len(rows) - 1, CHUNK_ROWS):
        some = _seen_from(centre, vectors[rows[start : start + CHUNK_ROWS + 1]])
        alike = np.einsum("nd,nd->n", some[:-1], some[1:])
        starts[start + 1 : start + len(some)] |= alike < least
    edges = np.append(np.flatnonzero(starts), len(rows))
    sizes = np.diff(edges)
    for begin, size in zip(edges[:-1][sizes > 2].tolist(), sizes[sizes > 2].tolist(), strict=True):
        first, end = begin, begin + size
        while first < end:
            own = _seen_from(centre, vectors[rows[first : min(end, first + most)]])
            unlike = np.flatnonzero(own @ own[0] < least)
            unlike = unlike[unlike > 0]
            first += int(unlike[0]) if len(unlike) else len(own)
            if first < end:
                starts[first] = True
    numbers: Integers = np.cumsum(starts) - 1
    return numbers


def _seen_from(centre: Floats, vectors: Floats) -> Floats:
    """Unit vectors from the centre to each; none where there is nothing between them."""
    differences = vectors - centre
    lengths = np.linalg.norm(differences, axis=1, keepdims=True)
    unit: Floats = differences / np.maximum(lengths, np.float32(1e-6))
    return unit
