"""Words as vectors, what they and examples open together, and two indexes as one."""

import numpy as np
import pytest

from app.engine.answers import join_openings, make_opening
from app.engine.combined import combine_indexes, combine_vectors, place_in_part
from app.engine.index import VectorsNotUsable, open_index
from app.engine.words import PROMPTS, embed_words


def unit(*numbers: float) -> np.ndarray:
    vector = np.array(numbers, dtype=np.float32)
    return vector / np.linalg.norm(vector)


def test_words_are_the_mean_of_the_prompts_the_bare_words_first():
    heard: list[str] = []

    def embed_text(texts: list[str]) -> np.ndarray:
        heard.extend(texts)
        return np.stack([unit(number + 1, 1, 0) for number in range(len(texts))])

    vector = embed_words("{grey} heron", embed_text)
    assert heard[0] == "{grey} heron"
    assert "a photo of a {grey} heron." in heard
    assert len(heard) == len(PROMPTS) > 3
    mean = np.mean([unit(number + 1, 1, 0) for number in range(len(PROMPTS))], axis=0)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), rtol=1e-6)


def test_words_and_examples_say_as_much_about_the_order():
    """Words are all about as far from every picture: a plain mean would not hear them."""
    rng = np.random.default_rng(3)
    count = 500
    alike, fits = rng.normal(size=count), rng.normal(size=count)
    vectors = np.stack([np.full(count, 9), 3 * alike, 0.3 * fits, rng.normal(size=count)], axis=1)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    examples, words = unit(0, 1, 0, 0), unit(0, 0, 1, 0)
    order = np.argsort(-(vectors @ join_openings(examples, words, vectors)))
    wanted = np.argsort(-(alike + fits))
    plain = np.argsort(-(vectors @ make_opening(np.stack([examples, words]))))
    assert len(set(order[:20]) & set(wanted[:20])) >= 15
    assert len(set(plain[:20]) & set(wanted[:20])) < 15


def test_words_and_examples_weigh_the_same_where_nothing_tells_their_spread():
    one = unit(1, 1, 1)[np.newaxis]
    joined = join_openings(unit(1, 0, 0), unit(0, 1, 0), one)
    np.testing.assert_allclose(joined, unit(1, 1, 0), rtol=1e-6)


def test_combined_cosine_is_the_mean_of_both(make_index, tmp_path):
    rng = np.random.default_rng(5)
    first = make_index(rng.normal(size=(9, 4)), image_ids=np.array([9, 3, 5, 7, 1, 4, 8, 2, 6]))
    second = make_index(rng.normal(size=(7, 6)), image_ids=np.array([1, 2, 3, 4, 5, 6, 77]))
    made = combine_indexes(tmp_path, first, second, embedder="a + b", revision="1 + 2")
    assert made.image_ids.tolist() == [3, 5, 1, 4, 2, 6]  # those of both, in the first's order
    assert made.vectors.shape == (6, 10)
    for one in (3, 1):
        for other in (2, 6):
            both = [
                index.vectors[index.rows_of([one])][0] @ index.vectors[index.rows_of([other])][0]
                for index in (first, second, made)
            ]
            assert both[2] == pytest.approx((both[0] + both[1]) / 2, abs=1e-6)
    manifest = open_index(tmp_path, verify=True).manifest
    assert (manifest.embedder, manifest.revision, manifest.count) == ("a + b", "1 + 2", 6)


def test_nothing_in_common_cannot_be_combined(make_index, tmp_path):
    one, other = make_index(np.eye(2), [1, 2]), make_index(np.eye(2), [3, 4])
    with pytest.raises(VectorsNotUsable):
        combine_indexes(tmp_path, one, other, embedder="a + b", revision="1")


def test_words_of_one_part_keep_their_order_in_both():
    rng = np.random.default_rng(6)
    firsts = np.stack([unit(*row) for row in rng.normal(size=(20, 3))])
    seconds = np.stack([unit(*row) for row in rng.normal(size=(20, 5))])
    rows = combine_vectors(firsts, seconds)
    words = unit(1, 2, 3, 4, 5)
    placed = place_in_part(words, before=3, after=0)
    np.testing.assert_allclose(rows @ placed, seconds @ words * np.sqrt(0.5), atol=1e-6)
    placed = place_in_part(unit(1, 2, 3), before=0, after=5)
    np.testing.assert_allclose(rows @ placed, firsts @ unit(1, 2, 3) * np.sqrt(0.5), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
