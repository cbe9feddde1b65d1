"""Replays that are started in the browser: their rows, and playing them in the background.

Runs, rounds and the report are files of the data folder, as `rarefind replay` writes them; a replay
that was stopped, or cut off with the server, goes on with the runs that are not finished.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Cast, Integer, cast, func, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.database import REPLAY_LOCK, Database
from app.errors import BadInput, NotFound, RarefindError
from app.evaluation import (
    USUAL_SIZES,
    AnotherReplay,
    PlayedRun,
    ReplaySettings,
    band_of,
    check_plan,
    check_replay,
    find_begun_vectors,
    list_runs,
    read_replay,
    run_replays,
)
from app.filtering import take_filter
from app.labelling import count_by_label
from app.oracle import read_oracle_of
from app.replay_report import find_thumbnails, write_report
from app.settings import Settings
from app.sources import NO_TARGET
from app.store import PATIENCE_S, fetch_folder, put_folder, replay_folder
from app.tables import Collection, Image, Person, Replay

MOST_RUNS = 5_000  # hours of one worker; the command line plays on many processes

logger = logging.getLogger(__name__)


class ReplayStopped(Exception):
    """Somebody pressed “Stop”; finished runs are kept."""


@dataclass(frozen=True)
class TargetChoice:
    """A label that can be replayed."""

    name: str
    image_count: int
    band: str
    size: Literal["few", "usual", "many"]  # usual ones are played unless others are asked for


def list_target_choices(session: Session, collection_id: int) -> list[TargetChoice]:
    """The labels of a collection with at least two images, the rarest first.

    Of the usual size are those that the command line plays without `--targets-between`.
    """
    counted = count_by_label(session, collection_id).items()
    return [
        TargetChoice(label, count, band_of(count), _size_of(count))
        for label, count in sorted(counted, key=lambda one: (one[1], one[0]))
        if label != NO_TARGET and count >= 2
    ]


def start_replay(
    session: Session,
    collection: Collection,
    person: Person,
    plan: ReplaySettings,
    *,
    settings: Settings,
) -> Replay:
    """Check a replay, refusing by name what can't be played, and put it in line."""
    run_count = len(list(list_runs(plan)))
    if run_count > MOST_RUNS:
        raise BadInput(
            f"That would be {run_count} runs; at most {MOST_RUNS} are played here. Choose fewer "
            "targets or strategies, or use “rarefind replay”, which plays several at a time."
        )
    check_plan(plan, is_grouped=False)
    chosen = take_filter(plan.where)
    oracle, _ = read_oracle_of(session, collection, settings=settings, chosen=chosen)
    check_replay(oracle, plan)
    made = Replay(
        collection_id=collection.id,
        person_id=person.id,
        settings=asdict(plan),
        state="waiting",
        run_count=run_count,
    )
    session.add(made)
    session.flush()
    return made


def list_replays(session: Session, collection_id: int) -> list[Replay]:
    """The replays of a collection, newest first."""
    query = select(Replay).filter_by(collection_id=collection_id).order_by(Replay.id.desc())
    return list(session.scalars(query))


def get_replay(session: Session, collection_id: int, replay_id: int) -> Replay:
    """One replay of a collection."""
    found = session.get(Replay, replay_id)
    if found is None or found.collection_id != collection_id:
        raise NotFound("There is no such replay.")
    return found


def stop_replay(session: Session, replay: Replay) -> None:
    """Have a replay stop after the run it plays now."""
    if replay.state in ("waiting", "running"):
        replay.state = "stopped"
        session.flush()


def resume_replay(session: Session, replay: Replay) -> bool:
    """Put a replay that did not end back in line; False for one that is there, or done."""
    if replay.state not in ("stopped", "failed"):
        return False
    replay.state, replay.problem = "waiting", None
    session.flush()
    return True


def list_unfinished_replays(database: Database) -> list[int]:
    """Replays that an earlier server left in line or unfinished; they wait again.

    What another server plays at this moment is left to it.
    """
    with database.session() as session:
        for made in session.scalars(select(Replay).filter_by(state="running")):
            if session.scalar(select(func.pg_try_advisory_xact_lock(*_lock_key(made.id)))):
                made.state = "waiting"
        session.flush()
        return list(session.scalars(select(Replay.id).filter_by(state="waiting").order_by("id")))


def play_replay(
    database: Database, replay_id: int, *, settings: Settings, go_on: Callable[[], None]
) -> None:
    """Play the runs of a replay that are not finished, and write its report.

    `go_on` is called after each run. What it raises and is no Exception, as KeyboardInterrupt,
    leaves the replay to be taken up again; any Exception is a fault, and ends it as failed.
    """
    with _claim(database, replay_id, go_on) as claimed:
        if not claimed:
            return
        with database.session() as session:
            made = session.get_one(Replay, replay_id)
            made.state, made.started_at, made.started_count = "running", func.now(), made.done_count
            collection = session.get_one(Collection, made.collection_id)
            plan = ReplaySettings(**made.settings)
        _play(database, replay_id, collection, plan, settings, go_on)


def find_replay_folder(settings: Settings, replay_id: int) -> Path:
    """Where the files of a replay that is done are, fetched if the store has them."""
    folder = replay_folder(settings, replay_id)
    fetch_folder(settings, folder, patience_s=PATIENCE_S)
    return folder


def read_played(settings: Settings, replay: Replay) -> tuple[dict[str, Any], list[PlayedRun]]:
    """Manifest and runs of a replay that is done."""
    if replay.state != "done":
        raise NotFound("This replay has not ended, so there is no report yet.")
    return read_replay(find_replay_folder(settings, replay.id))


def name_images(session: Session, image_ids: set[int]) -> dict[int, str]:
    """Paths by image id, of those that are not removed."""
    query = select(Image.id, Image.path).where(Image.id.in_(image_ids), Image.removed_at.is_(None))
    rows = session.execute(query)
    return {image.id: image.path for image in rows}


def time_left_s(replay: Replay, *, now: datetime) -> float | None:
    """How long the rest will take at the speed so far; None before the first run."""
    played = replay.done_count - replay.started_count
    if replay.state != "running" or replay.started_at is None or played < 1:
        return None
    return (
        (now - replay.started_at).total_seconds() / played * (replay.run_count - replay.done_count)
    )


def _size_of(image_count: int) -> Literal["few", "usual", "many"]:
    least, most = USUAL_SIZES
    return "few" if image_count < least else "many" if image_count > most else "usual"


@contextmanager
def _claim(database: Database, replay_id: int, go_on: Callable[[], None]) -> Iterator[bool]:
    """Hold a replay that waits, for one server; the database lets go when its process dies.

    False if it does not wait any more: stopped, deleted, or taken by another server. While it does
    and is held all the same, another server is about to leave it: somebody stopped and resumed it.
    """

    def waits() -> bool:
        with database.session() as session:
            return bool(session.scalar(select(Replay.state).filter_by(id=replay_id)) == "waiting")

    key = _lock_key(replay_id)
    engine = database.bind.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        while not connection.scalar(select(func.pg_try_advisory_lock(*key))):
            if not waits():
                yield False
                return
            go_on()
            time.sleep(1)
        try:
            yield waits()
        finally:
            with suppress(SQLAlchemyError):  # lost with the connection
                connection.execute(select(func.pg_advisory_unlock(*key)))


def _lock_key(replay_id: int) -> tuple[Cast[int], Cast[int]]:
    return cast(REPLAY_LOCK, Integer), cast(replay_id, Integer)


def _play(
    database: Database,
    replay_id: int,
    collection: Collection,
    plan: ReplaySettings,
    settings: Settings,
    go_on: Callable[[], None],
) -> None:
    out = replay_folder(settings, replay_id)
    try:
        with database.session() as session:
            chosen = take_filter(plan.where)
            oracle, folder = read_oracle_of(
                session,
                collection,
                settings=settings,
                chosen=chosen,
                vectors_sha256=find_begun_vectors(out),
            )
        tell = partial(_tell, database, replay_id, go_on)
        run_replays(oracle, folder, plan, out, progress=tell)
        with database.session() as session:
            write_report(
                out,
                names=oracle.name_of,
                find_pictures=partial(find_thumbnails, session, settings=settings),
            )
        put_folder(settings, out)
        _end(database, replay_id, "done", None)
    except ReplayStopped:
        logger.info("Replay %s was stopped.", replay_id)
    except AnotherReplay as error:
        sentence = (
            f"What this replay goes by is not what it was when it began: "
            f"{', '.join(error.differing)}. Where that can be undone, undo it and go on; else "
            "start a new replay."
        )
        _end(database, replay_id, "failed", sentence)
    except RarefindError as error:
        _end(database, replay_id, "failed", str(error))
    except OSError as error:
        _end(database, replay_id, "failed", f"A file could not be written: {error}.")
    except Exception:
        logger.exception("Replay %s failed", replay_id)
        sentence = (
            "This is a fault in Rarefind; the server's log says more. Finished runs are kept."
        )
        _end(database, replay_id, "failed", sentence)


def _tell(
    database: Database, replay_id: int, go_on: Callable[[], None], done: int, _total: int
) -> None:
    go_on()
    with database.session() as session:
        made = session.get(Replay, replay_id)
        if made is None or made.state != "running":
            raise ReplayStopped
        made.done_count = done


def _end(database: Database, replay_id: int, state: str, problem: str | None) -> None:
    with database.session() as session:
        session.execute(
            update(Replay)
            .filter_by(id=replay_id, state="running")
            .values(state=state, problem=problem, ended_at=func.now())
        )
