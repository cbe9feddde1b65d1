"""The index: exact scores and neighbours, ids to rows, and that damage never goes unseen."""

import dataclasses
import errno
import json
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.faiss_searcher import EXHAUSTIVE_ROWS, LEAST_RECALL
from app.engine.index import (
    CHUNK_ROWS,
    METRIC,
    IndexDamaged,
    IndexIncomplete,
    UnknownImages,
    VectorIndex,
    VectorsNotUsable,
    build_index,
    open_index,
)
from app.engine.metric import write_metric


def unit_rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(folder: Path, n: int = 50, d: int = 8) -> VectorIndex:
    return build_index(
        folder, vectors=unit_rows(n, d), image_ids=np.arange(n), embedder="drawn", revision="7"
    )


def test_scores_are_the_signed_distance_of_every_row(make_index):
    index = make_index([[1, 0], [0, 1], [3, 4]])

    scores = index.scores(np.array([2, -1], np.float32), 0.5)

    np.testing.assert_allclose(scores, [2.5, -0.5, 0.9], rtol=1e-6)
    assert scores.dtype == np.float32


def test_similarities_are_cosines(make_index):
    index = make_index([[1, 0], [0, 1], [3, 4]])
    np.testing.assert_allclose(index.similarities(np.array([1.0, 0], np.float32)), [1, 0, 0.6])


def test_nearest_first_with_ties_by_row(make_index):
    index = make_index([[0, 1], [1, 0], [1, 1], [1, 0]])

    similarities, rows = index.nearest(np.array([[1, 0]], np.float32), 3)

    assert rows.tolist() == [[1, 3, 2]]
    np.testing.assert_allclose(similarities, [[1, 1, np.sqrt(0.5)]], rtol=1e-6)


def test_of_many_equals_at_the_edge_the_first_rows_are_nearest(make_index):
    index = make_index([[1, 0]] + [[0, 1], [0.6, 0.8]] * 5)
    _, rows = index.nearest(index.vectors[:1], 4)
    assert rows.tolist() == [[0, 2, 4, 6]]
    _, rows = index.nearest(index.vectors[:1], 3, rows=np.array([10, 8, 6, 4, 1]))
    assert rows.tolist() == [[4, 6, 8]]


def test_nearest_among_allowed_rows_only(make_index):
    index = make_index([[0, 1], [1, 0], [1, 1], [1, 0]])
    _, rows = index.nearest(np.array([[1, 0], [0, 1]], np.float32), 9, rows=np.array([0, 2]))
    assert rows.tolist() == [[2, 0], [0, 2]]


@pytest.mark.parametrize("share_allowed", [None, 0.5])
def test_nearest_agrees_with_a_naive_search(tmp_path, share_allowed):
    # Large enough that candidates come from the 8-bit file, not from a scan of the exact vectors.
    vectors = unit_rows(3000, 24)
    index = build_index(
        tmp_path, vectors=vectors, image_ids=np.arange(3000), embedder="drawn", revision="1"
    )
    rows = np.arange(1, 3000, 2) if share_allowed else np.arange(3000)
    queries = unit_rows(5, 24, seed=9)

    similarities, found = index.nearest(queries, 20, rows=rows if share_allowed else None)

    expected = np.argsort(-(queries @ vectors[rows].T), axis=1, kind="stable")[:, :20]
    np.testing.assert_array_equal(found, rows[expected])
    np.testing.assert_allclose(
        similarities, np.take_along_axis(queries @ vectors.T, found, axis=1), rtol=1e-5
    )


@pytest.fixture(scope="module")
def large_index(tmp_path_factory) -> VectorIndex:
    """More images than are looked at one by one, in clusters as real ones are."""
    count = EXHAUSTIVE_ROWS + 1
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((500, 8))[np.arange(count) % 500]
    vectors += 0.4 * rng.standard_normal((count, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    folder = tmp_path_factory.mktemp("large")
    ids = np.arange(count)
    return build_index(folder, vectors=vectors, image_ids=ids, embedder="drawn", revision="1")


def test_a_large_index_looks_into_some_lists_and_says_what_that_misses(large_index):
    manifest = large_index.manifest
    queries = unit_rows(40, 8, seed=3)

    similarities, found = large_index.nearest(queries, 50)

    exact = np.sort(queries @ large_index.vectors.T, axis=1)[:, ::-1][:, :50]
    recall = (similarities >= exact[:, -1:] - 1e-6).mean()
    assert manifest.faiss == "ivf1095-sq8-ip"
    assert 0 < manifest.faiss_probes < 1095
    assert "1,095 lists" in manifest.faiss_why
    assert LEAST_RECALL <= manifest.faiss_recall <= 1
    assert recall > LEAST_RECALL - 0.03  # other queries than it was tuned on
    assert len(np.unique(found[0])) == 50


class CopyingGpu:
    """Stands in for faiss-gpu: the copy is one more index of the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, has_room: bool = True) -> None:
        self.searches = 0
        self.has_room = has_room
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
        monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
        monkeypatch.setattr(faiss, "index_cpu_to_gpu", self.copy, raising=False)

    def copy(self, _resources: object, device: int, index: faiss.IndexIVF) -> "CopyingGpu":
        if not self.has_room:
            raise RuntimeError("out of memory")
        self.device, self.index, self.nprobe = device, index, 0
        return self

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        self.searches += 1
        return self.index.search(
            queries, count, params=faiss.SearchParametersIVF(nprobe=self.nprobe)
        )


def test_a_gpu_is_searched_when_faiss_has_one(large_index, tmp_path, monkeypatch):
    queries, rows = unit_rows(3, 8, seed=6), np.arange(0, large_index.count, 2)
    expected = large_index.nearest(queries, 20)
    on_some = large_index.nearest(queries, 20, rows=rows)
    gpu = CopyingGpu(monkeypatch)
    fresh = reopen(large_index)
    np.testing.assert_array_equal(fresh.nearest(queries, 20), expected)
    assert (gpu.searches, gpu.device, gpu.nprobe) == (1, 0, large_index.manifest.faiss_probes)
    np.testing.assert_array_equal(fresh.nearest(queries, 20, rows=rows), on_some)
    fresh.nearest(queries, 1_000)  # more than FAISS finds at once on a GPU
    assert gpu.searches == 1

    full = CopyingGpu(monkeypatch, has_room=False)
    np.testing.assert_array_equal(reopen(large_index).nearest(queries, 20), expected)
    assert full.searches == 0


def reopen(index: VectorIndex) -> VectorIndex:
    """As it is before anything was asked of it."""
    return dataclasses.replace(index, _searcher=dataclasses.replace(index._searcher))


@pytest.mark.parametrize("step", [2, 20])
def test_a_large_index_gives_allowed_rows_only_and_never_too_few(large_index, step):
    rows = np.arange(7, large_index.count, step)
    queries = unit_rows(5, 8, seed=4)

    similarities, found = large_index.nearest(queries, 120, rows=rows)

    exact = np.sort(queries @ large_index.vectors[rows].T, axis=1)[:, ::-1][:, :120]
    assert (found % step == 7 % step).all()
    assert (similarities >= exact[:, -1:] - 1e-6).mean() > 0.9


def test_rows_far_from_the_query_are_found_when_only_they_are_allowed(large_index):
    query = large_index.vectors[:1]
    far = np.argsort(large_index.similarities(query[0]), kind="stable")[:20_000]

    _, found = large_index.nearest(query, 60, rows=np.sort(far))

    assert np.isin(found, far[-200:]).all()


def test_a_small_index_says_that_it_looks_at_every_image(tmp_path):
    manifest = build(tmp_path, n=400).manifest
    assert (manifest.faiss, manifest.faiss_probes, manifest.faiss_recall) == ("sq8-ip", 0, 1.0)
    assert "400 images" in manifest.faiss_why


@pytest.mark.parametrize(("k", "rows"), [(0, None), (3, [])])
def test_nearest_of_nothing_is_empty(make_index, k, rows):
    index = make_index([[0, 1], [1, 0]])
    allowed = None if rows is None else np.array(rows, np.int64)
    similarities, found = index.nearest(np.array([[1, 0]], np.float32), k, rows=allowed)
    assert similarities.shape == found.shape == (1, 0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=30, unique=True), st.data())
def test_rows_of_finds_every_image_whatever_the_order_of_ids(make_index, image_ids, data):
    index = make_index(np.ones((len(image_ids), 2)), image_ids)
    wanted = data.draw(st.lists(st.sampled_from(image_ids), max_size=8))
    assert index.image_ids[index.rows_of(wanted)].tolist() == wanted
    asked = data.draw(st.lists(st.integers(-(2**40), 2**40), max_size=8))
    known = index.holds([*asked, *wanted]).tolist()
    assert known == [one in image_ids for one in asked] + [True] * len(wanted)


@pytest.mark.parametrize("unknown", [-1, 55, 1000])
def test_rows_of_names_every_unknown_image(make_index, unknown):
    index = make_index(np.eye(3), [50, 60, 10])
    with pytest.raises(UnknownImages, match=f"image {unknown}, 11$"):
        index.rows_of([60, unknown, 10, 11])


def test_reopened_index_is_the_one_built(tmp_path):
    built = build(tmp_path)

    opened = open_index(tmp_path, verify=True)

    np.testing.assert_array_equal(opened.vectors, unit_rows(50, 8))
    np.testing.assert_allclose(opened.mean, unit_rows(50, 8).mean(axis=0), atol=1e-7)
    assert opened.manifest == built.manifest
    assert (opened.count, opened.dimension) == (50, 8)
    assert (opened.manifest.embedder, opened.manifest.revision) == ("drawn", "7")
    assert not opened.vectors.flags.writeable


def test_a_memory_map_in_place_is_not_written_again(tmp_path):
    path = tmp_path / "vectors.npy"
    mapped = np.lib.format.open_memmap(path, "w+", np.float32, (20, 4))
    mapped[:] = unit_rows(20, 4)
    inode = path.stat().st_ino
    before = path.stat().st_mtime_ns

    index = build_index(
        tmp_path, vectors=mapped, image_ids=np.arange(20), embedder="drawn", revision="1"
    )

    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (inode, before)
    np.testing.assert_array_equal(index.vectors, unit_rows(20, 4))


def test_mean_counts_every_chunk(tmp_path):
    vectors = np.zeros((CHUNK_ROWS + 3, 2), np.float32)
    vectors[:CHUNK_ROWS, 0] = 1
    vectors[CHUNK_ROWS:, 1] = 1
    index = build_index(
        tmp_path,
        vectors=vectors,
        image_ids=np.arange(len(vectors)),
        embedder="drawn",
        revision="1",
    )
    np.testing.assert_allclose(index.mean, vectors.mean(axis=0, dtype=np.float64), rtol=1e-5)
    assert index.nearest(vectors[-1:], 1)[1].tolist() == [[CHUNK_ROWS]]


def spoil_length(vectors, ids):
    vectors[7] *= 1.01


def spoil_nan(vectors, ids):
    vectors[7, 0] = np.nan


def spoil_id(vectors, ids):
    ids[3] = ids[7]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_length, r"row 7 \(image 17\) is not a unit vector: its length is 1.01"),
        (spoil_nan, r"row 7 \(image 17\) is not a unit vector"),
        (spoil_id, "an image id stands twice"),
    ],
)
def test_unusable_vectors_are_refused_by_name(tmp_path, spoil, sentence):
    vectors, ids = unit_rows(20, 4), np.arange(10, 30)
    spoil(vectors, ids)
    with pytest.raises(VectorsNotUsable, match=sentence):
        build_index(tmp_path, vectors=vectors, image_ids=ids, embedder="drawn", revision="1")
    with pytest.raises(IndexIncomplete):
        open_index(tmp_path)


def test_shapes_that_disagree_are_refused(tmp_path):
    for vectors, ids in [(unit_rows(3, 4), np.arange(4)), (np.empty((0, 4), np.float32), [])]:
        with pytest.raises(VectorsNotUsable):
            build_index(
                tmp_path, vectors=vectors, image_ids=np.array(ids), embedder="e", revision="1"
            )


@pytest.mark.parametrize(
    "name", ["vectors.npy", "image_ids.npy", "mean.npy", METRIC, "index.faiss"]
)
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_missing_or_cut_files_are_damage(tmp_path, name, damage):
    build(tmp_path)
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(IndexDamaged):
        open_index(tmp_path)


@pytest.mark.parametrize("name", ["vectors.npy", "image_ids.npy"])
def test_verify_sees_a_changed_byte(tmp_path, name):
    build(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[-3] ^= 1
    (tmp_path / name).write_bytes(content)

    open_index(tmp_path)
    with pytest.raises(IndexDamaged, match=name):
        open_index(tmp_path, verify=True)


def test_verify_sees_another_metric(tmp_path):
    metric = build(tmp_path).metric
    write_metric(tmp_path / METRIC, dataclasses.replace(metric, gains=2 * metric.gains))

    open_index(tmp_path)
    with pytest.raises(IndexDamaged, match=METRIC):
        open_index(tmp_path, verify=True)


def test_manifest_of_another_index_is_damage(tmp_path):
    build(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"count": 49}))
    with pytest.raises(IndexDamaged, match=r"vectors\.npy"):
        open_index(tmp_path)
    (tmp_path / "manifest.json").write_text('{"count": ')
    with pytest.raises(IndexDamaged, match="manifest"):
        open_index(tmp_path)


def test_vectors_mapped_in_a_folder_named_from_here_are_used_where_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("made")
    folder.mkdir()
    mapped = np.lib.format.open_memmap(
        folder / "vectors.npy", mode="w+", dtype=np.float32, shape=(300, 4)
    )
    mapped[:] = np.tile(np.eye(4, dtype=np.float32), (75, 1))
    built = build_index(
        folder, vectors=mapped, image_ids=np.arange(300), embedder="drawn", revision="1"
    )
    np.testing.assert_array_equal(built.vectors, mapped)


def test_full_disk_is_said_to_be_full_and_no_half_index_is_left(tmp_path):
    """FAISS itself writes what fits and says nothing."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full, a disk without room")
    (tmp_path / "index.faiss").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised:
        build_index(
            tmp_path,
            vectors=np.eye(4, dtype=np.float32),
            image_ids=np.arange(4),
            embedder="hash",
            revision="1",
        )
    assert raised.value.errno == errno.ENOSPC
    assert not (tmp_path / "manifest.json").exists()
