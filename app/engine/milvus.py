"""Milvus as what finds candidates: one collection of a vector database for each index.

A cluster is named by its address (`http://host:19530`); a path that ends in .db is a database of
milvus-lite, which one process opens and all others of the same machine reach through it. An index
keeps its vectors: all that Milvus answers is scored again from them.

Rows are upserted by their number, in order and several chunks at a time, so a repeated chunk is
harmless and how far a cut-off filling got is asked of Milvus itself. A collection's name has to
tell which vectors it holds: those of two indexes, or of one made anew, are never mixed.

Near the boundary two range searches find what strategies want. "At most this similar" together
with Milvus's order, most similar first, gives the rows just below it; the same with the opposite
query gives those just above.

This is the only importer of pymilvus and milvus_lite.
"""

import logging
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.engine import EngineError
from app.engine.bounds import NAMES, UNKNOWN, WHOLE, Bounds, Fields, enclose

LITE = ".db"
VECTOR = "vector"
CHUNK_ROWS = 2_000  # 4 MiB at 512 dimensions, of the 64 that a server takes at once
FILLING_THREADS = 4  # chunks under way; milvus-lite takes one at a time
EXHAUSTIVE_ROWS = 1_000_000  # a look at every row is exact; beyond, only likely lists are looked at
LISTS, PROBES = 1_024, 256  # for the nearest; near the boundary all lists are looked at
AWAY_S = 3.0  # that nobody asks again after it did not answer
MOST_FOUND = 16_384  # rows that a cluster answers at most
LITE_SURPLUS = 5  # milvus-lite cuts the range out of so many times the rows that are wanted
MOST_LISTED = 20_000  # rows named in one filter
FIRST_TIMES = 4  # times the rows at the boundary: what the first search asks for at least
QUERIES = 64  # at once
SLACK = 16  # rows more than asked for, should rounding put others before them
ROUNDING = 1e-5  # between a similarity of Milvus and ours
LEAST = -1.1  # below every similarity of unit vectors
TIMEOUT_S = 10.0  # of a search
LITE_TIMEOUT_S = 60.0  # which takes some seconds for each 100,000 rows it has to go past
SLOW_S = 600.0  # of what writes, loads or counts
JOINING_S = 15.0  # until another process has opened its database, or closed it
# No pings: milvus-lite's server ends a connection that sends them as often as pymilvus does.
UNASKED = {"grpc.keepalive_time_ms": 2**31 - 1, "grpc.keepalive_permit_without_calls": False}

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]
Answered = TypeVar("Answered")
_Found = tuple[Integers, Floats]  # rows and similarities, most similar first


class VectorEngineAway(EngineError):
    """Milvus is not installed, does not answer, or refuses."""


class VectorsNotFilled(EngineError):
    """Milvus does not hold all vectors of an index."""


class Milvus:
    """A Milvus that is connected to when it is first needed, and again after it was away.

    Parameters: `address`, of a cluster or the path of a .db; `token`, "user:password" or a key.
    Neither it nor anything else secret is in an error.
    """

    def __init__(self, address: str, token: str | None = None) -> None:
        self.address = address
        self.is_lite = address.endswith(LITE)
        self._token = token
        self._client: Any = None
        self._hosted: Any = None  # the server of a database that this process opened
        self._lock = Lock()
        self._away: tuple[float, str] | None = None  # until when it counts as away, and why

    def ask(self, question: Callable[[Any], Answered]) -> Answered:
        """What a question to the connected client gives, asked again once if it was cut off.

        Of one that did not answer it is said at once for a while: who waits for it holds up others.
        Raises VectorEngineAway.
        """
        exceptions, grpc = _import_errors()
        for is_last in (False, True):
            started = time.monotonic()
            client = self._connect()
            try:
                return question(client)
            except (exceptions.MilvusException, grpc.RpcError, ValueError) as error:
                # A closed channel is a ValueError; a wrong argument would be one twice.
                self._disconnect(client)
                if is_last or time.monotonic() - started > TIMEOUT_S / 2:
                    raise self._note_away(error) from error
        raise AssertionError

    def list_collections(self, prefix: str) -> list[str]:
        """The names of collections that begin with a prefix, in order. Raises VectorEngineAway."""
        names = self.ask(lambda client: client.list_collections(timeout=TIMEOUT_S))
        return sorted(name for name in names if name.startswith(prefix))

    def drop(self, name: str) -> None:
        """Delete a collection, should there be one. Raises VectorEngineAway."""
        self.ask(lambda client: client.drop_collection(name, timeout=SLOW_S))

    def close(self) -> None:
        """Let go of the connection, and of the database where this process holds it."""
        self._disconnect(self._client)
        with self._lock:
            if self._hosted is not None:
                server, database, _ = self._hosted
                self._hosted = None
                server.stop(grace=2)
                database.close()

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                if self._away is not None and time.monotonic() < self._away[0]:
                    raise VectorEngineAway(self._away[1])
                exceptions, _ = _import_errors()
                from pymilvus import MilvusClient

                try:
                    if self.is_lite:
                        self._client = self._open_database(MilvusClient)
                    else:
                        self._client = MilvusClient(
                            self.address, token=self._token or "", timeout=TIMEOUT_S
                        )
                except (exceptions.MilvusException, OSError) as error:
                    raise self._note_away(error) from error
            return self._client

    def _note_away(self, error: Exception) -> VectorEngineAway:
        """What is said of it from now on for a while."""
        explained = self._explain(error)
        self._away = time.monotonic() + AWAY_S, explained
        return VectorEngineAway(explained)

    def _disconnect(self, client: Any) -> None:
        with self._lock:
            if client is not None and client is self._client:
                self._client = None
                with suppress(Exception):  # it may be what failed
                    client.close()

    def _open_database(self, make_client: Any) -> Any:
        """Open the database, or reach the process that has it open.

        Whoever opened it writes its port beside it; when that process is gone, the next that asks
        opens it.
        """
        exceptions, _ = _import_errors()
        try:
            from milvus_lite.adapter.grpc.server import start_server_in_thread
            from milvus_lite.exceptions import DataDirLockedError
        except ImportError as error:
            raise VectorEngineAway(NOT_INSTALLED) from error
        path = Path(self.address)
        beside = path.with_suffix(".port")
        ends = time.monotonic() + JOINING_S
        while True:
            if self._hosted is None:
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._hosted = start_server_in_thread(str(path), host="127.0.0.1", port=0)
                    beside.write_text(str(self._hosted[2]))
                except DataDirLockedError:
                    pass  # another process has it
            try:
                port = self._hosted[2] if self._hosted else int(beside.read_text())
                return make_client(
                    f"http://127.0.0.1:{port}", timeout=TIMEOUT_S, grpc_options=UNASKED
                )
            except (exceptions.MilvusException, OSError, ValueError):
                if time.monotonic() > ends:
                    raise
            time.sleep(0.1)

    def _explain(self, error: Exception) -> str:
        said = getattr(error, "details", None)  # of gRPC, whose str() is a page
        what = said() if callable(said) else getattr(error, "message", None)
        what = " ".join((what or str(error)).split())[:300]
        if self._token:
            what = what.replace(self._token, "…")
        look = (
            "Is its folder whole and writable?"
            if self.is_lite
            else "Is it running, and reachable from here? A token goes into the file that "
            "RAREFIND_MILVUS_TOKEN_FILE names."
        )
        return f"Milvus at {self.address} can't be used: {what}. {look}"


NOT_INSTALLED = (
    "Searching by Milvus needs two more packages. Install them: pip install 'rarefind[milvus]'."
)


def _name_fields(values: Sequence[float]) -> dict[str, float]:
    return {
        name: int(value) if name in WHOLE else value
        for name, value in zip(NAMES, values, strict=True)
    }


@dataclass(frozen=True, eq=False)
class _Allowed:
    rows: Integers  # (r,) ascending
    expression: str  # that holds them all
    base: int  # rows that it holds


def fill_collection(
    milvus: Milvus,
    name: str,
    *,
    vectors: Floats,
    fields: Fields | None,
) -> Generator[int]:
    """Make a collection hold these vectors, going on where an earlier call was cut off.

    Parameters: `vectors` (n, d) float32 unit rows, the same at each call for this name; `fields`
    (6, n) of them or None. Yields rows done; closed before its end, it leaves what is there.
    Raises VectorEngineAway, VectorsNotFilled when not all of them are found afterwards.
    """
    count = len(vectors)
    milvus.ask(lambda client: _make(client, name, vectors.shape, milvus.is_lite))
    done = milvus.ask(lambda client: _count_whole(client, name, count))
    yield done

    def put(start: int) -> int:
        rows = range(start, min(start + CHUNK_ROWS, count))
        chunk = vectors[rows.start : rows.stop]
        noted = (
            [UNKNOWN] * len(rows)
            if fields is None
            else fields[:, rows.start : rows.stop].T.tolist()
        )
        entities = [
            {"row": row, VECTOR: vector, **_name_fields(values)}
            for row, vector, values in zip(rows, chunk, noted, strict=True)
        ]
        milvus.ask(lambda client: client.upsert(name, entities, timeout=SLOW_S))
        return rows.stop

    pool = ThreadPoolExecutor(1 if milvus.is_lite else FILLING_THREADS, "fill-milvus")
    try:
        yield from pool.map(put, range(done, count, CHUNK_ROWS))
    finally:
        pool.shutdown(cancel_futures=True)
    milvus.ask(lambda client: client.flush(name, timeout=SLOW_S))
    found = milvus.ask(lambda client: _count(client, name))
    if found != count:
        raise VectorsNotFilled(f"Of {count:,} vectors Milvus at {milvus.address} holds {found:,}.")


class MilvusSearcher:
    """Finds candidates among the rows of one index: a `Searcher` of app/engine/index.py.

    Parameters: `name` of the collection; `vectors` (n, d) and `fields` (6, n) or None, as it was
    filled with them.
    It looks whether all is there when it is first asked.
    """

    def __init__(
        self, milvus: Milvus, name: str, *, vectors: Floats, fields: Fields | None = None
    ) -> None:
        self._milvus = milvus
        self._name = name
        self._vectors = vectors
        self._count = count = len(vectors)
        self._fields = fields
        self._checked: Any = None  # the client by which all was found to be there
        self._most = count if milvus.is_lite else MOST_FOUND

    @property
    def memory_bytes(self) -> int:
        """What of it is in this process's memory."""
        return 0 if self._fields is None else self._fields.nbytes

    def find_nearest(
        self,
        queries: Floats,
        count: int,
        rows: Integers | None,
    ) -> Integers:
        """Rows (q, count) that are probably the nearest by inner product, -1 where no more are.

        Parameters: `queries` (q, d); `rows` (r,) the only rows allowed, ascending, None for all. Of
        a cluster no more than 16,384 come back. Raises VectorEngineAway, VectorsNotFilled.
        """
        allowed = None if rows is None else self._plan(rows)
        step = QUERIES if allowed is None else 1
        found = np.full((len(queries), count), -1, np.int64)
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            lists = (
                self._search(some, min(count, self._most, self._count))
                if allowed is None
                else [self._descend(some[0], count, allowed)[0]]
            )
            for place, (own, _) in enumerate(lists, start):
                found[place, : min(count, len(own))] = own[:count]
        return found

    def find_ranked(
        self,
        weights: Floats,
        bias: float,
        *,
        top: int,
        line: int,
        closed: Integers,
        rows: Integers | None,
    ) -> Integers:
        """Rows (m,), ascending, that probably hold, by score x·w + b and without the `closed` ones,
        the `top` highest, the `line` lowest at or above 0 and the `line` highest below 0.

        Of equal scores any. Parameters: `weights` (d,), of any length; `closed` (c,) in any order;
        `rows` as in `find_nearest`. Raises VectorEngineAway, VectorsNotFilled.
        """
        allowed = None if rows is None else self._plan(rows)
        length = float(np.linalg.norm(weights))
        if length == 0:  # all scores are equal
            every = np.arange(self._count) if rows is None else rows
            return np.setdiff1d(every, closed)[: max(top, line)]
        query = np.asarray(weights / length, dtype=np.float32)
        boundary = -bias / length  # the similarity where the score is 0
        top, line = (part + len(closed) + SLACK for part in (top, line))  # all may be closed
        wanted = max(top, FIRST_TIMES * line)
        (own, similarities), is_every = self._descend(query, wanted, allowed)
        above = int(np.count_nonzero(similarities >= boundary - ROUNDING))
        parts = [own[:top]]
        if is_every or above < len(own):
            parts.append(own[max(0, above - line) : above + line])
        if not is_every and above == len(own):
            (over, _), _ = self._descend(-query, line, allowed, ceiling=-boundary + ROUNDING)
            parts.append(over)
        if not is_every and above + line > len(own):
            (under, _), _ = self._descend(query, line, allowed, ceiling=boundary + ROUNDING)
            parts.append(under)
        return np.setdiff1d(np.concatenate(parts), closed)

    def score_all(self, weights: Floats) -> Floats:
        """x·w of every row (n,) float32, by one pass over the vectors: Milvus has no part in it."""
        products: Floats = self._vectors @ weights.astype(np.float32)
        return products

    def _plan(self, rows: Integers) -> "_Allowed":
        """How Milvus is told of allowed rows: by bounds around when and where they were taken."""
        if self._fields is None or len(rows) == 0:
            return _Allowed(rows, "", self._count)
        bounds, base = enclose(self._fields, rows)
        return _Allowed(rows, _write(bounds), base)

    def _descend(
        self, query: Floats, k: int, allowed: "_Allowed | None", *, ceiling: float | None = None
    ) -> tuple[_Found, bool]:
        """The `k` most similar allowed rows, none more similar than the ceiling, and whether they
        are all that there are.
        """
        nothing = np.empty(0, np.int64), np.empty(0, np.float32)
        if ceiling is not None and ceiling <= LEAST:
            return nothing, True
        if allowed is None:
            found, is_whole = self._go_on_until(query, k, None, "", k, ceiling)
            return found, is_whole and len(found[0]) < k
        if len(allowed.rows) == 0:
            return nothing, True
        expected = round(1.5 * k * allowed.base / len(allowed.rows))
        if expected <= self._most or len(allowed.rows) == allowed.base:
            found, is_whole = self._go_on_until(
                query, k, allowed.rows, allowed.expression, expected, ceiling
            )
            if is_whole:
                return found, len(found[0]) < k
        lists = [
            self._go_on_until(query, k, None, f"row in {part.tolist()}", k, ceiling)[0]
            for part in np.array_split(allowed.rows, -(-len(allowed.rows) // MOST_LISTED))
        ]
        rows, similarities = (np.concatenate(parts) for parts in zip(*lists, strict=True))
        order = np.argsort(-similarities, kind="stable")[:k]
        return (rows[order], similarities[order]), len(order) < k

    def _go_on_until(
        self,
        query: Floats,
        k: int,
        allowed: Integers | None,
        expression: str,
        limit: int,
        ceiling: float | None,
    ) -> tuple[_Found, bool]:
        """The `k` most similar of what is allowed, asking for more until there are so many.

        Also whether these are all that there can be.
        """
        while True:
            limit = max(1, min(limit, self._most, self._count))
            rows, similarities = self._search(query[np.newaxis], limit, expression, ceiling)[0]
            is_end = len(rows) < limit
            if ceiling is not None and self._milvus.is_lite:
                is_end = LITE_SURPLUS * limit >= self._count
            if allowed is not None:
                places = np.searchsorted(allowed, rows)
                places[places == len(allowed)] = 0
                is_kept = allowed[places] == rows
                rows, similarities = rows[is_kept], similarities[is_kept]
            is_whole = len(rows) >= k or is_end
            if is_whole or limit >= min(self._most, self._count):
                return (rows[:k], similarities[:k]), is_whole or limit >= self._count
            limit *= 4

    def _search(
        self, queries: Floats, limit: int, expression: str = "", ceiling: float | None = None
    ) -> list[_Found]:
        parameters: dict[str, Any] = {}
        if _needs_lists(self._count, self._milvus.is_lite):
            parameters = {"nprobe": PROBES}
        if ceiling is not None:
            # Around the boundary it is not the lists nearest to the query that count, but all.
            parameters = {"nprobe": LISTS, "max_empty_result_buckets": 65_535} if parameters else {}
            parameters |= {"radius": LEAST, "range_filter": float(ceiling)}

        def search(client: Any) -> Any:
            if client is not self._checked:
                self._check(client)
                self._checked = client
            return client.search(
                self._name,
                data=list(np.ascontiguousarray(queries, dtype=np.float32)),
                anns_field=VECTOR,
                filter=expression,
                limit=limit,
                output_fields=["row"],  # milvus-lite takes none for all, with the vectors
                search_params={"metric_type": "IP", "params": parameters},
                timeout=LITE_TIMEOUT_S if self._milvus.is_lite else TIMEOUT_S,
            )

        return [
            (
                np.fromiter((hit["row"] for hit in hits), np.int64),
                np.fromiter((hit["distance"] for hit in hits), np.float32),
            )
            for hits in self._milvus.ask(search)
        ]

    def _check(self, client: Any) -> None:
        """Load the collection, which a Milvus that was started anew has not, and count it."""
        found = 0
        if client.has_collection(self._name, timeout=TIMEOUT_S):
            client.load_collection(self._name, timeout=SLOW_S)
            found = _count(client, self._name)
        if found != self._count:
            raise VectorsNotFilled(
                f"Of {self._count:,} vectors Milvus at {self._milvus.address} holds {found:,}. "
                "Run `rarefind index build` for this collection: it fills in what is missing."
            )


def _make(client: Any, name: str, shape: tuple[int, ...], is_lite: bool) -> None:
    """A collection, loaded so that what it holds can be asked: an empty one where there is none."""
    from pymilvus import DataType

    if client.has_collection(name, timeout=TIMEOUT_S):
        client.load_collection(name, timeout=SLOW_S)  # by whatever it was let go
        return
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("row", DataType.INT64, is_primary=True)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=shape[1])
    for field in NAMES:
        schema.add_field(field, DataType.INT64 if field in WHOLE else DataType.DOUBLE)
    index = client.prepare_index_params()
    if _needs_lists(shape[0], is_lite):
        index.add_index(VECTOR, index_type="IVF_FLAT", metric_type="IP", params={"nlist": LISTS})
    else:
        index.add_index(VECTOR, index_type="FLAT", metric_type="IP")
    client.create_collection(
        name, schema=schema, index_params=index, consistency_level="Strong", timeout=SLOW_S
    )


def _needs_lists(count: int, is_lite: bool) -> bool:
    return count > EXHAUSTIVE_ROWS and not is_lite


def _count(client: Any, name: str, before: int | None = None) -> int:
    """Rows that a collection holds, or those of numbers before one."""
    expression = "" if before is None else f"row < {before}"
    answer = client.query(name, filter=expression, output_fields=["count(*)"], timeout=SLOW_S)
    return int(answer[0]["count(*)"])


def _count_whole(client: Any, name: str, count: int) -> int:
    """Rows from the first on of which none is missing, to whole chunks.

    Chunks are begun in order, so all before the first hole are there, and a few behind it.
    """
    if _count(client, name) == count:
        return count
    low, high = 0, -(-count // CHUNK_ROWS) - 1  # chunks: all before `low` are whole
    while low < high:
        middle = (low + high + 1) // 2
        if _count(client, name, middle * CHUNK_ROWS) == middle * CHUNK_ROWS:
            low = middle
        else:
            high = middle - 1
    return low * CHUNK_ROWS


def _write(bounds: tuple[Bounds, ...]) -> str:
    """Bounds in Milvus's language."""
    return " and ".join(f"({' or '.join(_write_ranges(one))})" for one in bounds)


def _write_ranges(one: Bounds) -> Iterator[str]:
    for ends in one.ranges:
        first, last = (int(end) if one.field in WHOLE else end for end in ends)
        yield f"({one.field} >= {first!r} and {one.field} <= {last!r})"


def _import_errors() -> tuple[Any, Any]:
    # What its C part would write into the terminal of every line that is cut is an error of ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        import grpc
        from pymilvus import exceptions
    except ImportError as error:
        raise VectorEngineAway(NOT_INSTALLED) from error
    # It logs each error that it also raises.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    logging.getLogger("grpc._server").addFilter(_is_news)
    return exceptions, grpc


def _is_news(record: logging.LogRecord) -> bool:
    """Whether what milvus-lite's server logs says anything.

    Of the questions by which pymilvus begins milvus-lite knows not all, and pymilvus copes.
    """
    return "Method not implemented!" not in record.getMessage()
