"""Rounds run against an oracle: known labels that answer instead of a person."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.engine.answers import Answers, Opening, Value, make_opening
from app.engine.events import spread_over_events
from app.engine.index import VectorIndex
from app.engine.loop import Choice, Proposal, propose_round, round_rng
from app.engine.strategies.round_state import LIKELY

Integers = NDArray[np.int64]
ORACLE_STREAM = 1  # keeps the oracle's mistakes apart from the random numbers of the round


@dataclass(frozen=True, eq=False)
class ReplayRound:
    """One round: what was proposed, what the oracle said, and all answers after it."""

    proposal: Proposal
    values: NDArray[np.int8]  # (k,) of Value, one for each proposed row
    answers: Answers


def replay(
    index: VectorIndex,
    truth_rows: Integers,
    *,
    opening_rows: Integers,
    strategy: str,
    rounds: int,
    size: int,
    seed: int,
    oracle_error: float = 0.0,
    oracle_unsure: float = 0.0,
    pool_rows: Integers | None = None,
    events: Integers | None = None,
    clock: Callable[[], float] | None = None,
) -> list[ReplayRound]:
    """Run a search against the oracle; ends early when no image is left.

    Parameters: `truth_rows` (t,) rows of the target's images; `opening_rows` (e,), e >= 1, example
    images of the collection, answered yes before round 1 (`answers` hold them too); `strategy`, a
    name of STRATEGIES; `rounds` >= 0, at most; `size` >= 1 images a round; `seed` >= 0;
    `oracle_unsure` and `oracle_error` in 0..1, the chances that an image is answered unsure or, if
    not, wrongly; `pool_rows`, `events` and `clock` as in `propose_round`. With events the oracle is
    asked about the images shown, and what it says of one holds for all images of its event. Raises
    UnknownStrategy.
    The same arguments give the same rounds, and a live search with the same seed and answers the
    same images: both call `propose_round` with `round_rng`.
    Source: the simulated oracle of B. Settles, "Active Learning Literature Survey", University of
    Wisconsin-Madison, 2009.
    """
    is_target = np.zeros(index.count, dtype=bool)
    is_target[truth_rows] = True
    opening = Opening(
        make_opening(index.vectors[opening_rows]), np.empty((0, index.dimension), np.float32)
    )
    answers = Answers(
        np.asarray(opening_rows, np.int64), np.full(len(opening_rows), Value.YES, np.int8)
    )
    played: list[ReplayRound] = []
    for round_number in range(1, rounds + 1):
        proposal = propose_round(
            index,
            answers,
            opening=opening,
            strategy=strategy,
            size=size,
            round_number=round_number,
            rng=round_rng(seed, round_number),
            pool_rows=pool_rows,
            events=events,
            clock=clock,
        )
        if len(proposal.rows) == 0:
            break
        values = ask_oracle(
            is_target[proposal.rows],
            error=oracle_error,
            unsure=oracle_unsure,
            seed=seed,
            round_number=round_number,
        )
        if events is None:
            answers = Answers(
                np.concatenate([answers.rows, proposal.rows]),
                np.concatenate([answers.values, values]),
            )
        else:
            answers = spread_over_events(answers, proposal.rows, values, events, pool_rows)
        played.append(ReplayRound(proposal, values, answers))
    return played


def retrace(
    index: VectorIndex,
    *,
    opening_rows: Integers,
    shown: Sequence[Integers],
    values: Sequence[NDArray[np.int8]],
    strategy: str,
    seed: int,
    pool_rows: Integers | None = None,
) -> list[ReplayRound]:
    """The rounds of a run whose images and answers are known, with the heads that chose them.

    Nothing is chosen anew, so it takes a fraction of the run's own time. One round without images
    comes last, for the head after all answers.
    Parameters: `shown` and `values`, of each round the rows (k,) int64 and the answers (k,) int8 of
    Value; the others as they were given to `replay`. Raises UnknownStrategy.
    Source: as `replay`; heads are those of the run wherever the engine is that of the run.
    """
    opening = Opening(
        make_opening(index.vectors[opening_rows]), np.empty((0, index.dimension), np.float32)
    )
    answers = Answers(
        np.asarray(opening_rows, np.int64), np.full(len(opening_rows), Value.YES, np.int8)
    )
    nothing = (np.empty(0, np.int64), np.empty(0, np.int8))
    traced: list[ReplayRound] = []
    for number, (rows, given) in enumerate([*zip(shown, values, strict=True), nothing], 1):
        proposal = propose_round(
            index,
            answers,
            opening=opening,
            strategy=strategy,
            size=len(rows),
            round_number=number,
            rng=round_rng(seed, number),
            pool_rows=pool_rows,
            planned=Choice.of(rows, LIKELY),
        )
        answers = Answers(
            np.concatenate([answers.rows, rows]), np.concatenate([answers.values, given])
        )
        traced.append(ReplayRound(proposal, given, answers))
    return traced


def ask_oracle(
    is_target: NDArray[np.bool_], *, error: float, unsure: float, seed: int, round_number: int
) -> NDArray[np.int8]:
    """The oracle's answers to the images of one round, with its mistakes drawn from the seed.

    Parameters: `is_target` (k,) bool, in display order; `error` and `unsure` in 0..1, chances as in
    `replay`; `seed` >= 0; `round_number` from 1. Returns (k,) int8 of Value.
    Source: the noisy oracle of B. Settles, "Active Learning Literature Survey", 2009, section 6.2.
    """
    chances = np.random.default_rng([seed, round_number, ORACLE_STREAM]).random((2, len(is_target)))
    says_yes = is_target ^ (chances[0] < error)
    values = np.where(says_yes, Value.YES, Value.NO).astype(np.int8)
    values[chances[1] < unsure] = Value.UNSURE
    return values


def hold_out(
    count: int, share: float, *, seed: int, groups: Integers | None = None
) -> tuple[Integers, Integers]:
    """Split rows 0..count-1 into a pool and a test part of at most `share` of them.

    Parameters: `count` >= 1; `share` in 0..1; `seed` >= 0, which alone decides the draw; `groups`
    (count,) int64, any numbers: rows of one group (frames of one animal track, one burst) stay
    together, None when each is its own. Whole groups are drawn until the next one is too large.
    Returns pool rows and test rows, int64, both ascending, together 0..count-1.
    Source: D. R. Roberts et al., "Cross-validation strategies for data with temporal, spatial,
    hierarchical, or phylogenetic structure", Ecography 40, 2017.
    """
    own_groups = np.arange(count) if groups is None else np.unique(groups, return_inverse=True)[1]
    order = np.random.default_rng(seed).permutation(int(own_groups.max()) + 1)
    sizes = np.bincount(own_groups)[order]
    test_groups = order[np.cumsum(sizes) <= share * count]
    is_test = np.isin(own_groups, test_groups)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
