"""An index too large to score every image in a round: its shortlist against the exact ranking."""

from pathlib import Path

import numpy as np
import pytest

from app.engine import faiss_searcher
from app.engine.answers import Answers, Opening
from app.engine.faiss_searcher import _Codes
from app.engine.head import Head
from app.engine.index import IndexDamaged, VectorIndex, build_index, open_index
from app.engine.loop import StrategyNeedsAllScores, propose_round, rank_likely, round_rng
from app.engine.mapped import _find_map, let_go, read_ahead
from app.engine.narrow import (
    DIRECTIONS,
    NARROW,
    Allowed,
    build_narrow,
    open_narrow,
    write_file,
)
from app.engine.parts import pick_parts
from app.engine.strategies import STRATEGIES

COUNT, DIMENSION = 20_000, 24
LEAST_AGREEMENT = 0.98
NOTHING = np.empty(0, np.int64)
WITHOUT_ALL = [name for name, entry in STRATEGIES.items() if not entry.needs_all]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(2)
    drawn = rng.standard_normal((60, DIMENSION))[rng.integers(0, 60, COUNT)]
    drawn += 0.5 * rng.standard_normal((COUNT, DIMENSION))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def indexes(tmp_path_factory, vectors) -> tuple[VectorIndex, VectorIndex]:
    """The same vectors, ranked all and told by shortlists."""
    return build_both(tmp_path_factory, vectors)


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory, vectors) -> tuple[VectorIndex, VectorIndex]:
    """As `indexes`, of vectors without a number below 0."""
    cut = np.maximum(vectors, 0)
    return build_both(tmp_path_factory, cut / np.linalg.norm(cut, axis=1, keepdims=True))


def build_both(tmp_path_factory, vectors: np.ndarray) -> tuple[VectorIndex, VectorIndex]:
    built = []
    for most in (COUNT, COUNT - 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("app.engine.index.RANKED_ROWS", most)
            folder = tmp_path_factory.mktemp("index")
            ids = np.arange(COUNT) + 7
            built.append(
                build_index(folder, vectors=vectors, image_ids=ids, embedder="drawn", revision="1")
            )
    return built[0], built[1]


def naive_parts(scores: np.ndarray, closed: np.ndarray, top: int, line: int) -> set[int]:
    rows = [row for row in range(len(scores)) if row not in set(closed.tolist())]
    best = sorted(rows, key=lambda row: -scores[row])[:top]
    above = sorted((row for row in rows if scores[row] >= 0), key=lambda row: scores[row])[:line]
    below = sorted((row for row in rows if scores[row] < 0), key=lambda row: -scores[row])[:line]
    return {*best, *above, *below}


def watch_passes(monkeypatch) -> list[_Codes]:
    """From here on: what each pass over all rows was over."""
    passes: list[_Codes] = []
    plain = _Codes.pass_over

    def pass_over(self, weights, above):
        passes.append(self)
        return plain(self, weights, above)

    monkeypatch.setattr(_Codes, "pass_over", pass_over)
    return passes


def test_parts_of_a_ranking_by_hand():
    scores = np.array([0.5, -0.1, 0.0, 3.0, -2.0, 0.2, -0.3], np.float32)
    assert pick_parts(scores, top=1, line=1).tolist() == [1, 2, 3]
    assert pick_parts(scores, top=0, line=2).tolist() == [1, 2, 5, 6]
    assert pick_parts(scores, top=9, line=0).tolist() == list(range(7))
    assert pick_parts(scores[:0], top=3, line=3).tolist() == []
    assert pick_parts(-np.abs(scores[:2]), top=0, line=5).tolist() == [0, 1]


def test_the_manifest_says_what_was_built_and_how_well_it_agrees(indexes):
    ranked, told = indexes
    assert (ranked.ranks_all, ranked.manifest.agreement) == (True, None)
    manifest = told.manifest
    assert not told.ranks_all
    assert manifest.faiss == "pca24-pq4-sq8-ip"
    assert "20,000 images" in manifest.faiss_why
    assert LEAST_AGREEMENT <= manifest.agreement <= 1
    assert 0.99 <= manifest.faiss_recall <= 1
    assert told.memory_bytes < ranked.memory_bytes


# Boundaries at the 10th, 200th, 5,000th, last and past the best score: shallow, and deep in. As few
# candidates as a large index has for its size, and more than these few images can have in lists.
@pytest.mark.parametrize("candidates", [600, 8_192])
@pytest.mark.parametrize("above", [10, 200, 5_000, COUNT, 0])
def test_a_shortlist_holds_what_the_exact_ranking_offers(indexes, monkeypatch, above, candidates):
    monkeypatch.setattr("app.engine.faiss_searcher.CANDIDATES", candidates)
    if above < 5_000:  # or the lists would never do among so few images
        for module in ("faiss_searcher", "narrow"):
            monkeypatch.setattr(f"app.engine.{module}.LINE_SLACK", 60)
    _, told = indexes
    passes = watch_passes(monkeypatch)
    rng = np.random.default_rng(above)
    shares = []
    for _ in range(5):
        weights = 8 * rng.standard_normal(DIMENSION).astype(np.float32)
        products = np.sort(told.vectors @ weights)[::-1]
        bias = -float(products[0] + 1 if not above else products[above - 1] - 1e-4)
        scores = told.vectors @ weights + np.float32(bias)
        closed = np.argsort(-scores)[:30:2]

        rows, given = told.shortlist(weights, bias, top=100, line=10, closed=closed)

        assert (np.diff(rows) > 0).all()
        assert not np.isin(rows, closed).any()
        np.testing.assert_allclose(given, scores[rows], atol=1e-4)
        expected = naive_parts(scores, closed, 100, 10)
        shares.append(np.isin(list(expected), rows).mean())
        assert len(rows) < 1_000
    # In 8 bits each row is looked at where there are too many candidates, or a deep boundary.
    assert len(passes) == (5 if candidates > COUNT // 20 or above >= 5_000 else 0)
    assert np.mean(shares) >= LEAST_AGREEMENT


def test_a_boundary_deep_among_the_images_is_looked_for_in_all_of_them(indexes):
    """Nothing less finds it: those nearest to the line are anywhere."""
    _, told = indexes
    weights = np.ones(DIMENSION, np.float32)
    bias = -float(np.median(told.vectors @ weights))
    scores = told.vectors @ weights + np.float32(bias)

    rows, _ = told.shortlist(weights, bias, top=5, line=12, closed=NOTHING)

    assert naive_parts(scores, NOTHING, 5, 12) <= set(rows.tolist())


def test_where_eight_bits_can_not_tell_which_are_nearest_more_are_looked_at(indexes, monkeypatch):
    """With few rows to spare: hundreds lie within what rounding changes, and all of them go on."""
    monkeypatch.setattr("app.engine.faiss_searcher.LINE_SLACK", 1)
    _, told = indexes
    rng = np.random.default_rng(5)
    counts = []
    for _ in range(10):
        weights = 8 * rng.standard_normal(DIMENSION).astype(np.float32)
        bias = -float(np.median(told.vectors @ weights))
        scores = told.vectors @ weights + np.float32(bias)
        rows, _ = told.shortlist(weights, bias, top=5, line=12, closed=NOTHING)
        assert naive_parts(scores, NOTHING, 5, 12) <= set(rows.tolist())
        counts.append(len(rows))
    assert min(counts) > 100

    monkeypatch.setattr("app.engine.faiss_searcher.MOST_BLURRED", 20)
    rows, _ = told.shortlist(weights, bias, top=5, line=12, closed=NOTHING)
    assert len(rows) <= 5 + faiss_searcher.SLACK + 2 * (12 + 20)


def test_rounding_is_as_large_as_the_index_says(indexes):
    _, told = indexes
    rng = np.random.default_rng(6)
    codes = told._searcher._wide
    for _ in range(5):
        weights = rng.standard_normal(DIMENSION).astype(np.float32)
        off = told._searcher.score_all(weights) - told.vectors @ weights
        assert codes.tell_rounding(weights) == pytest.approx(np.std(off), rel=0.1)


@pytest.mark.parametrize("candidates", [300, 8_192])
@pytest.mark.parametrize("size", [50, 1_500, 12_000])
def test_a_shortlist_stays_within_a_pool(indexes, monkeypatch, size, candidates):
    monkeypatch.setattr("app.engine.faiss_searcher.CANDIDATES", candidates)
    _, told = indexes
    rng = np.random.default_rng(size)
    pool = np.sort(rng.choice(COUNT, size, replace=False))
    weights = rng.standard_normal(DIMENSION).astype(np.float32)
    scores = told.vectors[pool] @ weights - np.float32(0.2)

    rows, _ = told.shortlist(weights, -0.2, top=40, line=5, closed=pool[:3], rows=pool)

    assert np.isin(rows, pool[3:]).all()
    expected = pool[list(naive_parts(scores, np.arange(3), 40, 5))]
    assert np.isin(expected, rows).mean() >= LEAST_AGREEMENT


@pytest.mark.parametrize("few", [1_000, 20_000])
def test_nearly_all_of_the_best_may_have_an_answer(indexes, monkeypatch, few):
    """Told to the lists, or left out of what they give: what comes next in order is found."""
    monkeypatch.setattr("app.engine.faiss_searcher.CANDIDATES", 300)
    monkeypatch.setattr("app.engine.faiss_searcher.FEW_CLOSED", few)
    _, told = indexes
    weights = np.random.default_rng(5).standard_normal(DIMENSION).astype(np.float32)
    order = np.argsort(-(told.vectors @ weights))
    for count in (250, 900, 5_000, COUNT - 7, COUNT):
        rows, _ = told.shortlist(weights, 0.0, top=50, line=0, closed=order[:count])
        found = np.isin(order[count : count + 50], rows)
        # So deep among the images 8 bits can hardly tell one from the next.
        assert count == COUNT or found.mean() >= (0.98 if count < 1_000 else 0.85)
        assert not np.isin(rows, order[:count]).any()


def test_pictures_of_the_same_are_not_all_read(tmp_path, monkeypatch, vectors):
    monkeypatch.setattr("app.engine.index.RANKED_ROWS", 10)
    same = np.concatenate([vectors[:1_000], np.repeat(vectors[:1], 6_000, axis=0)])
    index = build_index(
        tmp_path, vectors=same, image_ids=np.arange(7_000), embedder="drawn", revision="1"
    )
    rows, scores = index.shortlist(vectors[0], -0.5, top=40, line=5, closed=NOTHING)
    assert 40 <= len(rows) < 2_500
    assert np.sort(scores)[::-1][:40] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("candidates", [100, 8_192])
def test_a_head_that_tells_nothing_apart_still_gives_images(indexes, monkeypatch, candidates):
    """No product is above any other, so none is above what a sample tells."""
    monkeypatch.setattr("app.engine.faiss_searcher.CANDIDATES", candidates)
    _, told = indexes
    weights = np.zeros(DIMENSION, np.float32)
    rows, scores = told.shortlist(weights, 0.5, top=40, line=0, closed=np.arange(10))
    assert len(rows) >= 40
    assert not np.isin(rows, np.arange(10)).any()
    assert scores == pytest.approx(0.5)


def test_an_index_that_ranks_all_gives_the_exact_shortlist(indexes):
    ranked, _ = indexes
    weights = np.ones(DIMENSION, np.float32)
    scores = ranked.vectors @ weights - np.float32(0.5)
    closed = np.array([4, 3, 1000])
    rows, given = ranked.shortlist(weights, -0.5, top=20, line=4, closed=closed)
    assert set(rows.tolist()) == naive_parts(scores, closed, 20, 4)
    np.testing.assert_allclose(given, scores[rows], atol=1e-6)


def test_scores_of_all_are_right_to_eight_bits(indexes):
    ranked, told = indexes
    weights = np.random.default_rng(1).standard_normal(DIMENSION).astype(np.float32)
    exact = ranked.scores(weights, 0.25)
    off = np.abs(told.scores(weights, 0.25) - exact)
    assert off.max() < 0.02 * np.linalg.norm(weights)
    assert off.mean() < 0.003 * np.linalg.norm(weights)


def test_neighbours_are_those_of_the_exact_index(indexes):
    ranked, told = indexes
    queries = told.vectors[::2_500]
    expected, rows = ranked.nearest(queries, 30)
    similarities, found = told.nearest(queries, 30)
    assert np.mean([np.isin(*pair).mean() for pair in zip(rows, found, strict=True)]) > 0.98
    np.testing.assert_allclose(similarities[:, 0], 1, atol=1e-5)
    pool = np.arange(0, COUNT, 3)
    _, some = told.nearest(queries, 30, rows=pool)
    assert np.isin(some, pool).all()
    assert similarities.shape == expected.shape


@pytest.mark.parametrize(
    ("kind_of_vectors", "strategy"),
    [*(("indexes", strategy) for strategy in WITHOUT_ALL), ("unsigned", "rarefind")],
)
def test_rounds_are_those_of_the_exact_index(request, kind_of_vectors, strategy):
    indexes = request.getfixturevalue(kind_of_vectors)
    vectors = indexes[0].vectors
    same = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        kind = np.argsort(-(vectors @ vectors[rng.integers(COUNT)]))
        answers = Answers(np.array([kind[0]]), np.array([1], np.int8))
        opening = Opening(vectors[kind[0]], vectors[:0])
        for number in range(1, 6):
            chosen = [
                propose_round(
                    index,
                    answers,
                    opening=opening,
                    strategy=strategy,
                    size=12,
                    round_number=number,
                    rng=round_rng(seed, number),
                ).rows
                for index in indexes
            ]
            same.append(np.isin(chosen[0], chosen[1]).mean())
            values = np.where(np.isin(chosen[0], kind[:150]), 1, -1).astype(np.int8)
            answers = Answers(
                np.concatenate([answers.rows, chosen[0]]), np.concatenate([answers.values, values])
            )
    assert np.mean(same) >= 0.94


def test_hidden_rows_and_answers_are_not_shown(indexes, vectors):
    _, told = indexes
    arguments = {
        "opening": Opening(vectors[0], vectors[:0]),
        "strategy": "rarefind",
        "size": 12,
        "round_number": 1,
        "rng": round_rng(1, 1),
    }
    first = propose_round(told, Answers.empty(), **arguments).rows
    answers = Answers(first[:6], np.full(6, -1, np.int8))
    second = propose_round(told, answers, hidden_rows=first[6:], **arguments).rows
    assert not np.isin(second, first).any()
    assert len(second) == 12


def test_of_an_event_the_likeliest_image_is_shown_though_it_is_not_on_the_shortlist(
    indexes, vectors
):
    """Its likeliest image stands far above the line, another one close to it."""
    _, told = indexes
    weights = vectors[0]
    order = np.argsort(-(vectors @ weights))
    far, near = order[5_000], order[0]
    events = np.arange(COUNT)
    events[[far, near]] = min(far, near)
    proposal = propose_round(
        told,
        Answers.empty(),
        opening=Opening(weights, vectors[:0]),
        strategy="most-positive",
        size=12,
        round_number=1,
        rng=round_rng(1, 1),
        events=events,
        pool_rows=np.setdiff1d(np.arange(COUNT), order[1:4_990]),
    )
    assert near in proposal.rows
    assert far not in proposal.rows


def test_strategies_that_need_all_scores_are_refused_by_name(indexes, vectors):
    _, told = indexes
    for name in [*set(STRATEGIES) - set(WITHOUT_ALL), "anchoral:pf-ma"]:
        with pytest.raises(StrategyNeedsAllScores, match=f"{name} looks at every image.*rarefind"):
            propose_round(
                told,
                Answers.empty(),
                opening=Opening(vectors[0], vectors[:0]),
                strategy=name,
                size=12,
                round_number=2,
                rng=round_rng(1, 2),
            )


def test_the_most_likely_are_ranked_by_a_stored_head(indexes, vectors):
    ranked, told = indexes
    answers = Answers(np.arange(40), np.array([1, -1] * 20, np.int8))
    head = propose_round(
        ranked,
        answers,
        opening=Opening(vectors[0], vectors[:0]),
        strategy="rarefind",
        size=12,
        round_number=2,
        rng=round_rng(1, 2),
    ).head
    expected, scores, _ = rank_likely(ranked, answers, head, 50)
    rows, given, chances = rank_likely(told, answers, head, 50)
    assert np.isin(expected, rows).mean() >= 0.98
    assert (np.diff(given) <= 0).all()
    assert ((chances >= 0) & (chances <= 1)).all()
    np.testing.assert_allclose(given[0], scores[0], atol=1e-4)


def test_the_most_likely_of_a_pool(indexes, vectors):
    _, told = indexes
    answers = Answers(np.arange(40), np.array([1, -1] * 20, np.int8))
    head = Head(vectors[3], -0.2)
    pool = np.arange(0, COUNT, 3)
    rows, given, _ = rank_likely(told, answers, head, 30, rows=pool)
    scores = vectors[pool[14:]] @ vectors[3] - np.float32(0.2)  # the first 14 have an answer
    expected = pool[14:][np.argsort(-scores)[:30]]
    assert np.isin(rows, pool[14:]).all()
    assert np.isin(expected, rows).mean() >= 0.96
    np.testing.assert_allclose(given, vectors[rows] @ vectors[3] - 0.2, atol=1e-5)


def test_a_smaller_machine_gets_shortlists_sooner(tmp_path, monkeypatch, vectors):
    monkeypatch.setattr("app.engine.index.EXHAUSTIVE_ROWS", 1_000)
    some = vectors[:2_000]
    for name, memory_bytes, ranks_all in (
        ("large", 2 * some.nbytes, True),
        ("small", 2 * some.nbytes - 1, False),
    ):
        folder = tmp_path / name
        folder.mkdir()
        index = build_index(
            folder,
            vectors=some,
            image_ids=np.arange(2_000),
            embedder="drawn",
            revision="1",
            memory_bytes=memory_bytes,
        )
        assert index.ranks_all is ranks_all


def test_a_few_images_can_be_told_by_shortlists(tmp_path, monkeypatch, vectors):
    monkeypatch.setattr("app.engine.index.RANKED_ROWS", 0)
    index = build_index(
        tmp_path, vectors=vectors[:3], image_ids=np.arange(3), embedder="drawn", revision="1"
    )
    rows, _ = index.shortlist(vectors[0], 0.0, top=9, line=9, closed=np.array([1]))
    assert rows.tolist() == [0, 2]
    assert index.nearest(vectors[:1], 5)[1].tolist()[0][0] == 0


@pytest.mark.parametrize("name", [NARROW[3], DIRECTIONS, "sample.npy"])
def test_a_missing_file_is_damage(tmp_path, monkeypatch, vectors, name):
    monkeypatch.setattr("app.engine.index.RANKED_ROWS", 10)
    build_index(
        tmp_path, vectors=vectors[:200], image_ids=np.arange(200), embedder="drawn", revision="1"
    )
    (tmp_path / name).unlink()
    with pytest.raises(IndexDamaged, match="cannot be read"):
        open_index(tmp_path)


def test_too_few_candidates_to_agree_are_noticed(indexes, monkeypatch):
    """The measure itself can fail: of a few candidates it is low."""
    _, told = indexes
    searcher = told._searcher
    heads = faiss_searcher._make_heads(searcher._narrow.sample, told.mean)
    exact = faiss_searcher._rank_exactly(heads, told.vectors)
    assert faiss_searcher._agree(searcher, heads, exact) >= LEAST_AGREEMENT
    for name, value in (("CANDIDATES", 60), ("CANDIDATES_SHARE", COUNT), ("SCATTERED_SHARE", 1)):
        monkeypatch.setattr(f"app.engine.faiss_searcher.{name}", value)
    monkeypatch.setattr("app.engine.faiss_searcher.TOP", 60)
    assert faiss_searcher._agree(searcher, heads, exact) < 0.9


def test_rows_of_a_file_are_the_same_before_and_after_they_were_let_go(tmp_path, vectors):
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.asarray(np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    for some in (mapped, mapped[100:], vectors):
        expected = np.array(some[::50])
        let_go(some, 0, len(some))
        read_ahead(some, np.arange(0, len(some), 50))
        np.testing.assert_array_equal(some[::50], expected)
    assert _find_map(mapped[100:])[1] - _find_map(mapped)[1] == 100 * vectors.strides[0]
    assert _find_map(vectors) is None


def test_vectors_larger_than_the_memory_are_read_by_a_map_of_their_own(
    tmp_path, monkeypatch, vectors
):
    monkeypatch.setattr("app.engine.index.RANKED_ROWS", 10)
    monkeypatch.setattr("app.engine.index.EXHAUSTIVE_ROWS", 10)
    build_index(
        tmp_path, vectors=vectors[:300], image_ids=np.arange(300), embedder="drawn", revision="1"
    )
    small = open_index(tmp_path, memory_bytes=vectors[:300].nbytes)
    large = open_index(tmp_path, memory_bytes=3 * vectors[:300].nbytes)
    assert large._scattered is None
    assert small._scattered is not None
    rows = np.array([7, 3, 250])
    np.testing.assert_array_equal(small.read(rows), large.read(rows))
    for index in (small, large):
        index.warm(tmp_path)


def test_more_neighbours_than_there_are_candidates_are_found(indexes, monkeypatch, vectors):
    monkeypatch.setattr("app.engine.faiss_searcher.CANDIDATES", 100)
    _, told = indexes
    similarities, rows = told.nearest(vectors[:2], 3_000)
    assert rows.shape == (2, 3_000)
    expected = np.sort(vectors[:2] @ vectors.T, axis=1)[:, ::-1][:, :3_000]
    assert (similarities >= expected[:, -1:] - 1e-6).mean() > 0.98


def test_an_index_with_another_kind_of_narrow_file_is_built_again(tmp_path, monkeypatch, vectors):
    monkeypatch.setattr("app.engine.index.RANKED_ROWS", 10)
    build_index(
        tmp_path, vectors=vectors[:300], image_ids=np.arange(300), embedder="drawn", revision="1"
    )
    lists = faiss_searcher.faiss.index_factory(DIMENSION, "IVF2,SQ8")
    lists.train(vectors[:300])
    lists.add(vectors[:300])
    write_file(lists, tmp_path / NARROW[0])
    with pytest.raises(IndexDamaged, match=NARROW[0]):
        open_index(tmp_path)


@pytest.mark.parametrize("count", [9, 1_000, 20_000])
def test_the_first_look_finds_the_rows_above_a_product(tmp_path, vectors, count):
    """Rows of all parts, by their numbers, and none of those that only fill a part up."""
    some = vectors[:count]
    chunks = ((start, some[start : start + 700]) for start in range(0, count, 700))
    build_narrow(tmp_path, some, some.mean(axis=0), chunks, count)
    narrow = open_narrow(tmp_path)
    assert narrow.count == count
    weights = np.random.default_rng(count).standard_normal(DIMENSION).astype(np.float32)
    exact = some @ weights
    for share in (0.02, 0.5, 1.0):
        above = float(np.quantile(exact, 1 - share)) - 1e-3
        found = narrow.find(weights, above, None)
        assert (np.diff(found) > 0).all()
        off = 0.1 * np.linalg.norm(weights)  # of 24 directions in 4 bits
        assert set(np.flatnonzero(exact > above + off)) <= set(found.tolist())
        assert (exact[found] > above - off).all()
    for below in (-1e30, -1e10, -20.0 * float(np.abs(exact).max()), -np.linalg.norm(weights) * 3):
        assert narrow.find(weights, below, None).tolist() == list(range(count))
    for beyond in (20.0 * float(np.abs(exact).max()), 1e10):
        assert narrow.find(weights, beyond, None).tolist() == []
    is_allowed = np.arange(count) % 3 == 0
    found = narrow.find(weights, -1e30, Allowed(is_allowed, int(is_allowed.sum())))
    assert found.tolist() == np.flatnonzero(is_allowed).tolist()


def test_processes_share_what_the_first_look_reads(tmp_path, vectors):
    """Codes stay in the mapped file: nothing of their size is in memory before they are read."""
    narrow = build_narrow(
        tmp_path, vectors, vectors.mean(axis=0), iter([(0, vectors)]), len(vectors)
    )
    opened = open_narrow(tmp_path)
    maps = Path("/proc/self/maps").read_text()
    for name in NARROW:
        assert str(tmp_path / name) in maps
    weights = np.ones(DIMENSION, np.float32)
    np.testing.assert_array_equal(opened.find(weights, 0.1, None), narrow.find(weights, 0.1, None))
