"""What a search knows when it asks for its next round: the answers so far and how it was opened."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

SPREAD_ROWS = 4_096  # images from which the spread of similarities is told


class Value(IntEnum):
    """One answer on one image."""

    NO = -1
    UNSURE = 0
    YES = 1


@dataclass(frozen=True, eq=False)
class Answers:
    """Current answers of a search, one a row; unsure ones are kept but never trained on.

    `rows` (k,) int64, unique; `values` (k,) int8 of Value. `looked_at` (k,) bool: whether a person
    looked at the image itself, or its answer came with that on another one of its event; None where
    all were looked at.
    """

    rows: Integers
    values: NDArray[np.int8]
    looked_at: NDArray[np.bool_] | None = None

    @classmethod
    def empty(cls) -> "Answers":
        """No answer yet."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int8))

    @property
    def positives(self) -> Integers:
        """Rows answered yes, (p,) int64, in the order of `rows`."""
        return self._rows_with(Value.YES)

    @property
    def negatives(self) -> Integers:
        """Rows answered no, (m,) int64, in the order of `rows`."""
        return self._rows_with(Value.NO)

    def _rows_with(self, value: Value) -> Integers:
        chosen: NDArray[np.bool_] = self.values == value
        return self.rows[chosen]


@dataclass(frozen=True, eq=False)
class Opening:
    """How a search was opened.

    `vector` (d,) float32, unit: of examples, of words, or of both. `examples` (e, d) float32 unit
    rows: only the examples that are not images of the collection (uploaded photos); they train the
    head as positives. Example images of the collection are yes-answers; words never train it.
    """

    vector: Floats
    examples: Floats


def make_opening(vectors: Floats) -> Floats:
    """The opening vector of examples: their mean, brought back to unit length.

    Parameters: `vectors` (m, d) float32 unit rows, m >= 1. Returns (d,) float32, unit. Opposite
    examples that cancel out give the first of them.
    Source: the first query of J. J. Rocchio, "Relevance feedback in information retrieval", 1971,
    without its negatives.
    """
    mean: NDArray[np.float64] = np.mean(vectors, axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if length < 1e-6:
        return np.asarray(vectors[0], dtype=np.float32)
    return (mean / length).astype(np.float32)


def join_openings(examples: Floats, words: Floats, vectors: Floats) -> Floats:
    """One opening vector of examples and words, in which both say as much about the order.

    Parameters: `examples` (d,) float32 unit, the opening vector of the examples; `words` (d,)
    float32 unit; `vectors` (n, d) float32 unit rows of the collection, n >= 1, of which an evenly
    spaced part is read. Returns (d,) float32, unit.
    Each is divided by the spread (standard deviation) of its similarities to the collection before
    the sum. Pictures and words lie in two cones some way apart, so similarities to words are all
    low and close together, and in a plain mean they would hardly be heard: docs/algorithms.md.
    Source: the sum of z-scores, A. Jain, K. Nandakumar, A. Ross, "Score normalization in multimodal
    biometric systems", Pattern Recognition 38, 2005; the cones, W. Liang et al., "Mind the Gap",
    NeurIPS 2022.
    """
    step = -(-len(vectors) // SPREAD_ROWS)
    both = np.stack([examples, words])
    spreads = np.std(vectors[::step] @ both.T, axis=0, dtype=np.float64)
    if spreads.min() < 1e-6:  # one image, or all alike: nothing to weigh by
        return make_opening(both)
    return make_opening((both / spreads[:, np.newaxis]).astype(np.float32))
