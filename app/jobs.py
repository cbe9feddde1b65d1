"""Long work in the server's background: importing a source, indexing its collection, replays.

One thread does one job after the other; progress stands in the tables `imports`, `indexes` and
`replays`, so that any page can show it and a restart goes on where a kill left off.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from threading import Event

from app.database import Database
from app.deleting import empty_bin
from app.engine import EngineError
from app.errors import RarefindError
from app.importing import ImportProgress, import_images, mark_interrupted_imports
from app.indexes import list_wanted, prepare_index, update_indexes
from app.indexing import combine_indexes, list_unfinished_builds
from app.replays import list_unfinished_replays, play_replay
from app.settings import Settings

logger = logging.getLogger(__name__)


class Stopping(BaseException):
    """The server is being stopped; what is done so far is kept. No job may take it for a fault."""


class StoppedByPerson(RarefindError):
    """Somebody stopped the preparation of a collection; what is done so far is kept."""


@dataclass(frozen=True)
class Asked:
    """An index somebody asked for; a model that can't be loaded leaves no other trace."""

    embedder: str
    problem: str | None = None


class Jobs:
    """The background thread of one server."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._stopping = Event()
        self._stopped: set[int] = set()  # collections whose preparation somebody stopped
        self._jobs: dict[int, list[Future[None]]] = {}  # of each collection, waiting ones included
        self._asked: dict[tuple[int, str], Asked] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs")

    def start(self) -> None:
        """Take up what an earlier server left unfinished."""
        mark_interrupted_imports(self._database)
        self._thread.submit(self._run, self._empty_bin)
        for collection_id, embedder in list_unfinished_builds(self._database):
            self._submit(collection_id, self._index, collection_id, embedder)
        for replay_id in list_unfinished_replays(self._database):
            self.replay(replay_id)

    def prepare(
        self,
        collection_id: int,
        source: Path,
        *,
        labels: str | None,
        copy: bool,
        embedder: str | None = None,
    ) -> None:
        """Import `source` into the collection, then bring its indexes up to date."""
        self._stopped.discard(collection_id)
        self._submit(collection_id, self._import, collection_id, source, labels, copy, embedder)
        self._submit(collection_id, self._update, collection_id, embedder)

    def update(self, collection_id: int) -> None:
        """Bring the collection's indexes up to date: images were removed or put back."""
        self._stopped.discard(collection_id)
        self._submit(collection_id, self._update, collection_id, None)

    def index(self, collection_id: int, embedder: str) -> None:
        """Make an index of the collection by an embedder."""
        self._stopped.discard(collection_id)
        self._ask(collection_id, embedder, self._index, collection_id, embedder)

    def combine(self, collection_id: int, first: str, second: str) -> None:
        """Make one index of those by two embedders."""
        name = f"{first} + {second}"
        self._ask(collection_id, name, self._combine, collection_id, first, second)

    def stop(self, collection_id: int) -> None:
        """Stop preparing the collection at the next chunk, and what waits of it too."""
        if self.can_stop(collection_id):
            self._stopped.add(collection_id)

    def can_stop(self, collection_id: int) -> bool:
        """Whether it is this server that prepares the collection, and not a command beside it."""
        return any(not job.done() for job in self._jobs.get(collection_id, ()))

    def is_stopping(self, collection_id: int) -> bool:
        """Whether somebody stopped the preparation, and it has not ended yet."""
        return collection_id in self._stopped and self.can_stop(collection_id)

    def list_asked(self, collection_id: int) -> list[Asked]:
        """The indexes that were asked for and are not there: waiting, under way, or failed."""
        return [
            asked for (own_id, _), asked in list(self._asked.items()) if own_id == collection_id
        ]

    def replay(self, replay_id: int) -> None:
        """Play a replay that waits."""
        self._thread.submit(self._run, self._replay, replay_id)

    def close(self) -> None:
        """Stop at the next file or chunk; everything before it is kept."""
        self._stopping.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _ask(self, collection_id: int, embedder: str, job, *arguments) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002
        """Have an index made, and remember that it was asked for until it is there."""
        key = collection_id, embedder
        if key in self._asked and self._asked[key].problem is None:
            return  # a double click: it waits already
        self._asked[key] = Asked(embedder)

        def make() -> None:
            try:
                job(*arguments)
            except Exception as error:
                known = isinstance(error, (RarefindError, EngineError))
                sentence = str(error) if known else "Something went wrong; the log says more."
                self._asked[key] = Asked(embedder, sentence)
                raise
            self._asked.pop(key, None)

        self._submit(collection_id, make)

    def _submit(self, collection_id: int, job, *arguments) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002
        going_on = [other for other in self._jobs.get(collection_id, ()) if not other.done()]
        self._jobs[collection_id] = [*going_on, self._thread.submit(self._run, job, *arguments)]

    def _run(self, job, *arguments) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN002
        try:
            job(*arguments)
        except Stopping:
            logger.info("Stopped with the server; it goes on at the next start.")
        except RarefindError as error:
            logger.warning("%s", error)  # the page shows it from the import's or index's row
        except Exception:
            logger.exception("A background job failed")

    def _import(
        self,
        collection_id: int,
        source: Path,
        labels: str | None,
        copy: bool,
        embedder: str | None,
    ) -> None:
        with self._database.session() as session:
            first = list_wanted(session, collection_id, embedder=embedder)[0]
        import_images(
            self._database,
            collection_id,
            source,
            settings=self._settings,
            copy=copy,
            labels=labels,
            embedder=first,
            progress=partial(self._go_on_with, collection_id),
        )

    def _index(self, collection_id: int, embedder: str) -> None:
        self._go_on_with(collection_id)
        prepare_index(
            self._database,
            collection_id,
            settings=self._settings,
            embedder=embedder,
            progress=partial(self._go_on_with, collection_id),
        )

    def _update(self, collection_id: int, embedder: str | None) -> None:
        self._go_on_with(collection_id)
        update_indexes(
            self._database,
            collection_id,
            settings=self._settings,
            embedder=embedder,
            progress=partial(self._go_on_with, collection_id),
        )

    def _combine(self, collection_id: int, first: str, second: str) -> None:
        combine_indexes(self._database, collection_id, first, second, settings=self._settings)

    def _replay(self, replay_id: int) -> None:
        play_replay(self._database, replay_id, settings=self._settings, go_on=self._go_on)

    def _empty_bin(self) -> None:
        empty_bin(self._database, self._settings, now=datetime.now(UTC))

    def _go_on_with(self, collection_id: int, *_progress: ImportProgress | int) -> None:
        self._go_on()
        if collection_id in self._stopped:
            raise StoppedByPerson(
                "It was stopped before its end. What was done is kept: press Run again to go on."
            )

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise Stopping
