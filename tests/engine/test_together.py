"""Heads that wait are scored in one pass, each as if it were alone."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from app.engine.together import (
    BLOCK_ROWS,
    FEW_ROWS,
    MOST_TOGETHER,
    Passes,
    multiply_together,
)


def draw(count: int, dimension: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


@pytest.mark.parametrize("count", [1, BLOCK_ROWS - 1, BLOCK_ROWS, 5 * BLOCK_ROWS + 37])
@pytest.mark.parametrize("threads", [1, 3])
def test_each_product_is_that_of_its_row_and_head(count, threads):
    vectors, heads = draw(count), draw(3, seed=1)
    products = multiply_together(vectors, heads, threads=threads)
    expected = heads.astype(np.float64) @ vectors.T.astype(np.float64)
    np.testing.assert_allclose(products, expected, atol=1e-4)


def test_company_and_threads_change_no_bit():
    vectors, heads = draw(9 * BLOCK_ROWS + 5, dimension=512), draw(7, dimension=512, seed=1)
    alone = multiply_together(vectors, heads[3:4])[0]
    for threads in (1, 2, 4):
        assert np.array_equal(multiply_together(vectors, heads, threads=threads)[3], alone)
        swapped = heads[[3, 0, 1]]
        assert np.array_equal(multiply_together(vectors, swapped, threads=threads)[0], alone)


def test_heads_that_wait_are_scored_in_one_pass_first_come_first_served():
    vectors = draw(FEW_ROWS, dimension=4)
    heads = draw(1 + MOST_TOGETHER + 3, dimension=4, seed=1)
    begun, may_end = Event(), Event()
    passes_done = []

    def multiply(given, together):
        begun.set()
        assert may_end.wait(10)
        passes_done.append(together)
        return multiply_together(given, together)

    passes = Passes(multiply)
    with ThreadPoolExecutor(len(heads)) as pool:
        asked = [pool.submit(passes.multiply, vectors, heads[0])]
        assert begun.wait(10)
        for waiting, head in enumerate(heads[1:], start=1):
            asked.append(pool.submit(passes.multiply, vectors, head))
            while len(passes._waiting) < waiting:  # in this order
                pass
        may_end.set()
        found = [one.result(10) for one in asked]
    assert [len(one) for one in passes_done] == [1, MOST_TOGETHER, 3]
    assert np.array_equal(np.concatenate(passes_done), heads)
    for head, products in zip(heads, found, strict=True):
        assert np.array_equal(products, multiply_together(vectors, head[np.newaxis])[0])


def test_a_pass_that_fails_fails_for_who_was_in_it_alone():
    vectors, heads = draw(FEW_ROWS, dimension=4), draw(2, dimension=4, seed=1)
    tries = []

    def multiply(given, together):
        tries.append(len(together))
        if len(tries) == 1:
            raise MemoryError
        return multiply_together(given, together)

    passes = Passes(multiply)
    with pytest.raises(MemoryError):
        passes.multiply(vectors, heads[0])
    assert np.array_equal(
        passes.multiply(vectors, heads[1]), multiply_together(vectors, heads[1:])[0]
    )


def test_many_at_once_each_get_their_own():
    vectors, heads = draw(FEW_ROWS + 77, dimension=8), draw(60, dimension=8, seed=1)
    passes = Passes()
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda head: passes.multiply(vectors, head), heads))
    for head, products in zip(heads, found, strict=True):
        assert np.array_equal(products, multiply_together(vectors, head[np.newaxis])[0])
