"""Heads that wait are scored together: one pass over the vectors for all of them.

A pass over a million vectors is bound by reading them. So it goes block by block, each small enough
to stay in a core's cache while every head that waits is multiplied with it: eight heads take twice
the time of one. A head gets the same bits whoever is scored with it, and however many threads do
it, since each block is one product of its own; a round can be proposed again and gives the same.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

BLOCK_ROWS = 128  # 256 KiB at 512 dimensions: a quarter of the second cache of small processors
MOST_TOGETHER = 8  # heads; more would make the first one wait longer than they save
MOST_THREADS = 8  # memory gives no more of them work
FEW_ROWS = 32_768  # some 5 ms: not worth waiting for anybody

Floats = NDArray[np.float32]


def multiply_together(vectors: Floats, heads: Floats, *, threads: int = 1) -> Floats:
    """The products of all vectors with each head, in one pass.

    Parameters: `vectors` (n, d) float32, C-contiguous; `heads` (k, d) float32, k >= 1; `threads`
    >= 1 share the rows. Returns (k, n) float32: the same bits for a head whatever k and `threads`.
    Source: loop tiling, M. D. Lam, E. E. Rothberg, M. E. Wolf, "The cache performance and
    optimizations of blocked algorithms", ASPLOS 1991.
    """
    products = np.empty((len(heads), len(vectors)), np.float32)
    whole = len(vectors) // BLOCK_ROWS
    bounds = [BLOCK_ROWS * (whole * part // threads) for part in range(threads + 1)]
    spans = [*itertools.pairwise(bounds), (bounds[-1], len(vectors))]

    def multiply(span: tuple[int, int]) -> None:
        start, stop = span
        if start == stop:
            return
        rows = min(BLOCK_ROWS, stop - start)
        blocks = vectors[start:stop].reshape(-1, 1, rows, vectors.shape[1])
        # One call for all blocks and heads, so that the interpreter is let go of once.
        found = np.matmul(blocks, heads[np.newaxis, :, :, np.newaxis])  # (blocks, k, rows, 1)
        products[:, start:stop] = found[..., 0].transpose(1, 0, 2).reshape(len(heads), -1)

    if threads == 1:
        for span in spans:
            multiply(span)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(multiply, spans))
    return products


class _Asked:
    """A head that waits, until it has its products or is to lead the next pass."""

    def __init__(self, head: Floats) -> None:
        self.head = head
        self.woken = Event()
        self.products: Floats | None = None
        self.problem: BaseException | None = None


class Passes:
    """Passes over one set of vectors, one at a time, each with all heads that wait by then.

    First come, first served: who asks while a pass goes on is in the next one, or as many passes
    later as `MOST_TOGETHER` heads are before it. Who asks first does the pass for the others, so
    nothing runs while nobody asks.
    """

    def __init__(self, multiply: Callable[[Floats, Floats], Floats] | None = None) -> None:
        threads = min(MOST_THREADS, os.cpu_count() or 1)
        self._multiply = multiply or (
            lambda vectors, heads: multiply_together(vectors, heads, threads=threads)
        )
        self._lock = Lock()  # held for a moment only
        self._waiting: list[_Asked] = []
        self._goes_on = False

    def multiply(self, vectors: Floats, head: Floats) -> Floats:
        """The products of all vectors (n, d) with one head (d,), (n,) float32.

        Always of the same vectors: they are an argument so that nothing here keeps them open.
        """
        if len(vectors) < FEW_ROWS:
            few: Floats = vectors @ head
            return few
        asked = _Asked(head)
        with self._lock:
            self._waiting.append(asked)
            leads, self._goes_on = not self._goes_on, True
        if not leads:
            asked.woken.wait()
        if asked.products is None and asked.problem is None:
            self._lead(vectors)
        if asked.problem is not None:
            raise asked.problem
        assert asked.products is not None  # noqa: S101  # nosec B101 # for the types
        return asked.products

    def _lead(self, vectors: Floats) -> None:
        """Do a pass for the first that wait, oneself among them, then have the next one led."""
        with self._lock:
            together = self._waiting[:MOST_TOGETHER]
            del self._waiting[:MOST_TOGETHER]
        try:
            products = self._multiply(vectors, np.stack([one.head for one in together]))
            for one, own in zip(together, products, strict=True):
                one.products = own.copy()  # else each would keep those of all
        except BaseException as problem:
            for one in together:
                one.problem = problem
        finally:
            with self._lock:
                self._goes_on = bool(self._waiting)
                follower = self._waiting[0] if self._waiting else None
            for one in together:
                one.woken.set()
            if follower is not None:
                follower.woken.set()
