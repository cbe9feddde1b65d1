"""Milvus as what finds candidates, on a real milvus-lite: against a look at every row."""

import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from app.engine import milvus as engine_milvus
from app.engine.bounds import NAMES, enclose, note_fields
from app.engine.milvus import (
    CHUNK_ROWS,
    Milvus,
    MilvusSearcher,
    VectorEngineAway,
    VectorsNotFilled,
    fill_collection,
)

TRIAL = "rarefind_trial_"


NOTHING = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def milvus(tmp_path_factory) -> Iterator[Milvus]:
    """milvus-lite, or a cluster that is free to be filled: `RAREFIND_TEST_MILVUS_URL`."""
    one = Milvus(
        os.environ.get("RAREFIND_TEST_MILVUS_URL")
        or str(tmp_path_factory.mktemp("milvus") / "milvus.db")
    )
    for name in one.list_collections(TRIAL):
        one.drop(name)
    yield one
    one.close()


def unit_rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(milvus: Milvus, name: str, vectors: object, fields: np.ndarray | None = None):
    rows = np.asarray(vectors, dtype=np.float32)
    assert list(fill_collection(milvus, TRIAL + name, vectors=rows, fields=fields))[-1] == len(rows)
    return MilvusSearcher(milvus, TRIAL + name, vectors=rows, fields=fields)


def rank(vectors, weights, bias, k: int, rows=None, closed=NOTHING) -> set[int]:
    """The three parts by a look at every row."""
    rows = np.setdiff1d(np.arange(len(vectors)) if rows is None else rows, closed)
    scores = (vectors @ weights + bias)[rows]
    down = rows[np.argsort(-scores, kind="stable")]
    above = int((scores >= 0).sum())
    return {*down[:k], *down[max(0, above - k) : above], *down[above : above + k]}


def ask(searcher, weights, bias, k: int, rows=None, closed=NOTHING) -> np.ndarray:
    return searcher.find_ranked(weights, bias, top=k, line=k, closed=closed, rows=rows)


@pytest.fixture(scope="module")
def drawn(milvus) -> tuple[np.ndarray, np.ndarray, MilvusSearcher]:
    """3,000 random rows with a date, an hour and a place each, some of them unknown."""
    vectors = unit_rows(3_000, 16)
    rng = np.random.default_rng(1)
    fields = np.array(
        [
            note_fields(
                None
                if row % 11 == 0
                else datetime(2024, 1 + row % 12, 1 + row % 28, row % 24, row % 60, 1),
                None if row % 13 == 0 else float(rng.uniform(-60, 60)),
                None if row % 13 == 0 else float(rng.uniform(-180, 180)),
                None if row % 7 == 0 else f"camera {row % 5}",
            )
            for row in range(3_000)
        ]
    ).T
    return vectors, fields, fill(milvus, "drawn", vectors, fields)


# The line at every place: nothing above it, little, half of all, all but a few, all.
BIASES = [-9.0, -0.75, -0.4, -0.1, 0.0, 0.2, 0.6, 9.0]


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("k", [1, 20, 200])
def test_ranked_rows_are_those_of_a_look_at_every_row(drawn, bias, k):
    vectors, _, searcher = drawn
    weights = 3 * unit_rows(1, 16, seed=5)[0]  # of any length
    found = ask(searcher, weights, 3 * bias, k)
    assert rank(vectors, weights, 3 * bias, k) <= set(found.tolist())
    assert (np.diff(found) > 0).all()
    assert found.dtype == np.int64
    assert len(found) <= 3 * (k + engine_milvus.SLACK)


@pytest.mark.parametrize("bias", BIASES)
def test_answered_rows_do_not_take_the_place_of_open_ones(drawn, bias):
    vectors, _, searcher = drawn
    weights = unit_rows(1, 16, seed=5)[0]
    down = np.argsort(-(vectors @ weights))
    above = int((vectors @ weights + bias >= 0).sum())
    closed = np.concatenate([down[:60], down[max(60, above - 9) : above + 25]])[::-1]
    found = ask(searcher, weights, bias, 8, closed=closed)
    assert rank(vectors, weights, bias, 8, closed=closed) <= set(found.tolist())
    assert not np.isin(found, closed).any()


@pytest.mark.parametrize("bias", BIASES)
def test_ranked_rows_of_a_pool(drawn, bias):
    vectors, _, searcher = drawn
    weights = unit_rows(1, 16, seed=6)[0]
    for rows in (np.arange(0, 3_000, 2), np.arange(100, 160), np.array([7])):
        found = ask(searcher, weights, bias, 15, rows)
        assert rank(vectors, weights, bias, 15, rows) <= set(found.tolist()) <= set(rows.tolist())


def test_a_pool_is_named_where_too_few_of_it_come_back(drawn, monkeypatch):
    """A cluster answers no more than so many rows: a rare pool lies beyond them."""
    vectors, _, searcher = drawn
    monkeypatch.setattr(searcher, "_most", 40)
    monkeypatch.setattr(engine_milvus, "MOST_LISTED", 7)  # in several filters
    weights = unit_rows(1, 16, seed=7)[0]
    rows = np.arange(5, 3_000, 100)
    found = ask(searcher, weights, 0.1, 5, rows)
    assert rank(vectors, weights, 0.1, 5, rows) <= set(found.tolist()) <= set(rows.tolist())


def test_a_heap_of_equals_at_the_line_comes_with_what_is_around(milvus):
    vectors = unit_rows(400, 8, seed=3)
    vectors[50:80] = vectors[50]
    searcher = fill(milvus, "equals", vectors)
    weights = unit_rows(1, 8, seed=4)[0]
    bias = -float(vectors[50] @ weights)
    scores = vectors @ weights + bias
    found = ask(searcher, weights, bias, 10)
    assert set(np.argsort(-scores)[:10]) <= set(found.tolist())
    # Of equals any will do; here there are more of them than are asked for.
    assert np.isin(found, np.arange(50, 80)).sum() >= 10


def test_few_rows_all_come(milvus):
    searcher = fill(milvus, "few", np.eye(3, 4))
    assert ask(searcher, np.ones(4), -0.5, 10).tolist() == [0, 1, 2]
    assert ask(searcher, np.zeros(4), 1.0, 2).tolist() == [0, 1]
    assert ask(searcher, np.ones(4), 0, 5, NOTHING).tolist() == []
    assert ask(searcher, np.zeros(4), 1.0, 1, np.array([1, 2])).tolist() == [1]
    assert ask(searcher, np.ones(4), 0, 5, closed=np.array([2, 0])).tolist() == [1]
    nearest = searcher.find_nearest(np.array([[0.6, 0.8, 0, 0]], np.float32), 5, None)
    assert nearest.tolist() == [[1, 0, 2, -1, -1]]


def test_nearest_rows_of_many_queries(drawn):
    vectors, _, searcher = drawn
    queries = unit_rows(70, 16, seed=8)
    expected = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :30]
    assert searcher.find_nearest(queries, 30, None).tolist() == expected.tolist()
    rows = np.arange(1, 3_000, 3)
    expected = rows[np.argsort(-(queries[:2] @ vectors[rows].T), axis=1, kind="stable")[:, :30]]
    assert searcher.find_nearest(queries[:2], 30, rows).tolist() == expected.tolist()


TAKEN, HOUR, MONTH, LATITUDE, LONGITUDE, PLACE = range(6)
KEPT = {  # rows that a filter keeps, and the fields that Milvus is asked about
    "date": (lambda f: (f[TAKEN] >= 1_704_067_200) & (f[TAKEN] <= 1_712_000_000), {"taken"}),
    "night": (lambda f: (f[HOUR] >= 20) | ((f[HOUR] >= 0) & (f[HOUR] <= 4)), {"hour"}),
    "box over the date line": (
        lambda f: (np.abs(f[LATITUDE]) < 12.5) & (np.abs(f[LONGITUDE]) >= 150),
        {"latitude", "longitude"},
    ),
    "place": (lambda f: f[PLACE] == f[PLACE, 3], {"place"}),
    "no date": (lambda f: f[TAKEN] < 0, {"taken"}),
}


@pytest.mark.parametrize("named", KEPT)
def test_what_a_filter_leaves_out_is_left_out_by_milvus(drawn, named, monkeypatch):
    vectors, fields, searcher = drawn
    is_kept, asked_about = KEPT[named]
    rows = np.flatnonzero(is_kept(fields))
    assert 10 < len(rows) < 2_000
    assert enclose(fields, rows)[1] == len(rows)
    asked = []
    searched = searcher._search
    monkeypatch.setattr(
        searcher, "_search", lambda *given: asked.append(given[2]) or searched(*given)
    )
    weights = unit_rows(1, 16, seed=9)[0]
    found = ask(searcher, weights, 0.1, 5, rows)
    assert rank(vectors, weights, 0.1, 5, rows) <= set(found.tolist()) <= set(rows.tolist())
    for expression in asked:
        assert asked_about <= {name for name in NAMES if name in expression}


def test_bounds_hold_what_was_corrected_since_and_what_else_a_filter_left_out(drawn):
    """Row 4 was dated anew, so the filter keeps it now; and it keeps one of forty at night."""
    vectors, fields, searcher = drawn
    rows = np.union1d(np.flatnonzero(KEPT["night"][0](fields))[::40], [12])
    assert fields[HOUR, 12] == 12
    assert searcher.find_nearest(vectors[12:13], 1, rows).tolist() == [[12]]
    found = ask(searcher, vectors[0], 0.0, 10, rows)
    assert rank(vectors, vectors[0], 0.0, 10, rows) <= set(found.tolist()) <= set(rows.tolist())


def test_bounds_tell_unknown_from_known():
    days = [datetime(2024, 5, day % 28 + 1, 9) for day in range(99)]
    known = [note_fields(day, number / 10, 1.0, "A") for number, day in enumerate(days)]
    fields = np.array(known + [note_fields(None, None, None, None)] * 50).T
    for rows in (np.arange(99), np.arange(99, 149)):
        bounds, count = enclose(fields, rows)
        assert count == len(rows)
        assert [one.field for one in bounds] == ["taken"], "the others leave out nothing more"
    assert enclose(fields, np.arange(149)) == ((), 149)


def _fill_and_die(address: str, chunks: int) -> None:
    vectors = unit_rows(9_500, 8)
    for done in fill_collection(Milvus(address), "cut", vectors=vectors, fields=None):
        if done >= chunks * CHUNK_ROWS:
            os.kill(os.getpid(), signal.SIGKILL)


def test_filling_goes_on_after_a_kill(tmp_path):
    address = str(tmp_path / "milvus.db")
    killed = multiprocessing.get_context("spawn").Process(target=_fill_and_die, args=(address, 2))
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    vectors = unit_rows(9_500, 8)
    milvus = Milvus(address)
    searcher = MilvusSearcher(milvus, "cut", vectors=vectors)
    with pytest.raises(VectorsNotFilled, match=r"Of 9,500 vectors .* holds [46],000\."):
        searcher.find_nearest(vectors[:1], 1, None)
    told = list(fill_collection(milvus, "cut", vectors=vectors, fields=None))
    assert told[0] >= 4_000  # what was there is not sent again
    assert told[-1] == 9_500
    assert searcher.find_nearest(vectors[::1_900], 1, None).tolist() == [
        [row] for row in range(0, 9_500, 1_900)
    ]
    milvus.close()


def test_a_hole_is_filled(milvus):
    vectors = unit_rows(8_100, 8)
    searcher = fill(milvus, "hole", vectors)
    milvus.ask(lambda client: client.delete(TRIAL + "hole", filter="row in [4100, 8050]"))
    told = list(fill_collection(milvus, TRIAL + "hole", vectors=vectors, fields=None))
    assert told == [4_000, 6_000, 8_000, 8_100]
    assert searcher.find_nearest(vectors[[4_100, 8_050]], 1, None).tolist() == [[4_100], [8_050]]


def test_what_is_not_there_is_not_searched(milvus):
    searcher = MilvusSearcher(milvus, "never", vectors=np.eye(8, dtype=np.float32))
    with pytest.raises(VectorsNotFilled, match=r"holds 0\..*rarefind index build"):
        searcher.find_nearest(np.eye(8, dtype=np.float32), 1, None)


def test_dropping(milvus):
    fill(milvus, "gone_1", np.eye(3))
    fill(milvus, "gone_2", np.eye(3))
    names = [f"{TRIAL}gone_1", f"{TRIAL}gone_2"]
    assert milvus.list_collections(f"{TRIAL}gone_") == names
    milvus.drop(names[0])
    milvus.drop(names[0])  # as when a kill came between
    assert milvus.list_collections(f"{TRIAL}gone_") == names[1:]


def _hold(address: str, is_open, may_end) -> None:
    milvus = Milvus(address)
    milvus.list_collections("")
    is_open.set()
    may_end.wait(60)
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_share_a_database_and_one_opens_it_again(tmp_path):
    address = str(tmp_path / "milvus.db")
    milvus = Milvus(address)
    fill(milvus, "shared", unit_rows(100, 8))
    milvus.close()
    spawn = multiprocessing.get_context("spawn")
    is_open, may_end = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(address, is_open, may_end))
    other.start()
    assert is_open.wait(60)
    searcher = MilvusSearcher(milvus, TRIAL + "shared", vectors=unit_rows(100, 8))
    assert searcher.find_nearest(unit_rows(100, 8)[3:4], 1, None).tolist() == [[3]]
    assert milvus._hosted is None  # answered by the other process
    may_end.set()
    other.join(60)
    assert searcher.find_nearest(unit_rows(100, 8)[4:5], 1, None).tolist() == [[4]]
    assert milvus._hosted is not None
    milvus.close()


def test_a_cluster_that_is_away_is_named_without_its_secret():
    milvus = Milvus("http://127.0.0.1:9", token="ada:secret")
    searcher = MilvusSearcher(milvus, "any", vectors=np.eye(3, dtype=np.float32))
    began = time.monotonic()
    with pytest.raises(VectorEngineAway, match=r"Milvus at http://127\.0\.0\.1:9 .*") as refused:
        searcher.find_nearest(np.eye(3, dtype=np.float32), 1, None)
    assert "secret" not in str(refused.value)
    assert time.monotonic() - began < 25


def test_a_database_that_cannot_be_made_is_said(tmp_path):
    Path(tmp_path / "file").write_text("")
    with pytest.raises(VectorEngineAway, match="can't be used"):
        Milvus(str(tmp_path / "file" / "milvus.db")).list_collections("")


def test_what_needs_nobodys_look_is_not_logged(tmp_path, caplog):
    """pymilvus asks more than milvus-lite knows; and a line between them is no news either."""
    milvus = Milvus(str(tmp_path / "quiet.db"))
    try:
        fill(milvus, "quiet", unit_rows(20, 4))
        assert "not implemented" not in caplog.text
        assert os.environ["GRPC_VERBOSITY"] == "NONE"  # of what its C part writes by itself
        logging.getLogger("grpc._server").error("Exception calling application: the disk is full")
        assert "the disk is full" in caplog.text
    finally:
        milvus.close()
