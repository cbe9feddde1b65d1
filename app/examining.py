"""What `rarefind doctor` finds: whether all that Rarefind needs is there, and what to do if not.

It only reads; the embedded database is started for it if that does not run.
"""

import shutil
import subprocess  # nosec B404 # only its errors are named
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.database import RESTORING, Database, connect_database, reaching, read_versions
from app.deleting import KEPT_FOR
from app.engine import EngineError
from app.engine.embedders import BOXES, gather_files, looks_at_boxes
from app.errors import DatabaseNotUsable, IndexNotUsable, StoreNotUsable
from app.exports.files import list_old_exports
from app.importing import photo_path
from app.indexing import check_index, is_on_disk
from app.jobs import UNFINISHED, has_worker
from app.overview import LEAST_FREE_BYTES
from app.settings import Settings
from app.store import check_store, list_stored, place_original, say_store
from app.sweeping import list_leftovers, measure_files
from app.tables import (
    Action,
    AuditEvent,
    Collection,
    Image,
    ImageIndex,
    Job,
    Photo,
)

MOST_NAMED = 3  # of what is gone: enough to know which disk it was on
CLOCKS_APART_S = 5.0  # more than a slow answer of the database
KEPT_INDEXES = ("ready", "past")

State = Literal["well", "remark", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    state: State
    what: str
    sentence: str  # how it stands and, unless it is well, what to do


def examine(settings: Settings, *, now: datetime) -> Iterator[Finding]:
    """Look at everything, one thing after the other."""
    if not settings.home.is_dir():
        yield Finding(
            "remark",
            "data folder",
            f"{settings.home} is not there yet. “rarefind serve” or “rarefind demo” makes it; if "
            "you had one, name it in RAREFIND_HOME.",
        )
    else:
        yield from _examine_folder(settings)
    if settings.store is not None:
        yield _examine_store(settings)
    yield _examine_device(settings)
    if settings.database_url is not None or (settings.home / "postgres").is_dir():
        yield from _examine_database(settings, now)
    elif (settings.home / "thumbnails").is_dir():
        yield Finding(
            "wrong",
            "database",
            f"{settings.home} has thumbnails, but no database. If you use a PostgreSQL of your "
            "own, set DATABASE_URL; else restore a backup into another folder.",
        )


def _examine_folder(settings: Settings) -> Iterator[Finding]:
    home = settings.home
    try:
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"rarefind")
    except OSError as error:
        yield Finding(
            "wrong",
            "data folder",
            f"{home} can't be written to: {error.strerror}. Make room, set its rights for whoever "
            "runs Rarefind, or connect its disk.",
        )
    else:
        yield Finding("well", "data folder", f"{home} can be written to.")
    if (home / RESTORING).exists():
        yield Finding(
            "wrong",
            "restore",
            f"A restore into {home} did not come to its end. Delete what lies there (and the "
            "tables of DATABASE_URL, if you set it), then restore again.",
        )
    free_bytes = shutil.disk_usage(home).free
    room = f"{free_bytes / 1e9:,.1f} GB are free"
    if free_bytes < settings.keep_free_gb * 1e9:
        yield Finding(
            "wrong",
            "disk",
            f"{room}, less than RAREFIND_KEEP_FREE_GB: uploads and exports are refused. Make room; "
            "“Overview”, for admins, shows what takes it.",
        )
    elif free_bytes < LEAST_FREE_BYTES:
        yield Finding("remark", "disk", f"{room}. Make room before it runs out.")
    else:
        yield Finding("well", "disk", f"{room}.")


def _examine_store(settings: Settings) -> Finding:
    try:
        check_store(settings)
    except StoreNotUsable as error:
        return Finding("wrong", "store", f"{error} ({error.detail})")
    return Finding("well", "store", f"{say_store(settings)} keeps what is put there.")


def _examine_device(settings: Settings) -> Finding:
    from app.engine.embedders.running import try_devices  # brings torch

    try:
        names = ", ".join(try_devices(settings.device))
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().partition("\n")[0].rstrip(".")
        return Finding(
            "wrong",
            "device",
            f"RAREFIND_DEVICE={settings.device} can't be used: {why}. Set it to auto or cpu, or "
            "install the driver and a PyTorch for it.",
        )
    return Finding("well", "device", f"Models run on {names}.")


def _examine_database(settings: Settings, now: datetime) -> Iterator[Finding]:
    try:
        database = connect_database(settings)
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        yield Finding(
            "wrong",
            "database",
            f"The embedded PostgreSQL does not start: {error}. Its own words are in "
            f"{settings.home / 'postgres' / 'log'}.",
        )
        return
    try:
        with closing(database), reaching(database):
            versions = read_versions(database)
            server = f"PostgreSQL {versions.postgresql.partition(' ')[0]} answers"
            tables = f"its tables are at version {versions.revision}"
            if not versions.is_known:
                yield Finding(
                    "wrong",
                    "database",
                    f"{server}, but {tables}, of a newer Rarefind. Install that version.",
                )
            elif versions.revision != versions.newest:
                yield Finding(
                    "remark",
                    "database",
                    f"{server}; {tables if versions.revision else 'it has no tables yet'}. The "
                    f"next start brings them to {versions.newest}; take a backup before.",
                )
            else:
                yield Finding("well", "database", f"{server}, and {tables}, the newest.")
                yield from _examine_rows(database, settings, now)
    except DatabaseNotUsable as error:
        yield Finding("wrong", "database", str(error))


def _examine_rows(database: Database, settings: Settings, now: datetime) -> Iterator[Finding]:
    for look in (
        _examine_clock,
        _examine_jobs,
        _examine_indexes,
        _examine_weights,
        _examine_originals,
        _examine_left_over,
    ):
        # A store that can't be reached was said before.
        with database.session() as session, suppress(StoreNotUsable):
            yield from look(session, settings, now)


def _examine_clock(session: Session, _settings: Settings, now: datetime) -> Iterator[Finding]:
    begun = datetime.now(UTC)
    there = session.scalar(select(func.clock_timestamp()))
    apart_s = (there - begun).total_seconds() if there else 0.0
    newest = max(
        (
            at
            for column in (Action.at, AuditEvent.at)
            if (at := session.scalar(select(func.max(column)))) is not None
        ),
        default=None,
    )
    if abs(apart_s) > CLOCKS_APART_S:
        yield Finding(
            "wrong",
            "clock",
            f"This machine's clock and the database's are {abs(apart_s):,.0f} s apart: links, "
            "sign-ins and jobs would end at wrong times. Set both by a time server.",
        )
    elif newest is not None and newest > now + timedelta(seconds=CLOCKS_APART_S):
        yield Finding(
            "wrong",
            "clock",
            f"It is {now:%Y-%m-%d %H:%M} UTC here, earlier than the newest thing that was done "
            f"({newest:%Y-%m-%d %H:%M}). Set the clock by a time server.",
        )
    else:
        yield Finding("well", "clock", f"It is {now:%Y-%m-%d %H:%M} UTC, as in the database.")


def _examine_jobs(session: Session, _settings: Settings, _now: datetime) -> Iterator[Finding]:
    unfinished = session.scalar(
        select(func.count()).select_from(Job).where(Job.state.in_(UNFINISHED))
    )
    if not unfinished:
        yield Finding("well", "long work", "Nothing waits.")
    elif has_worker(session):
        yield Finding("well", "long work", f"{unfinished:,} waiting or under way.")
    else:
        yield Finding(
            "wrong",
            "long work",
            f"{unfinished:,} waiting, and nobody does it. Start “rarefind serve” or “rarefind "
            "worker”; what was under way is gone on with.",
        )


def _examine_indexes(session: Session, settings: Settings, _now: datetime) -> Iterator[Finding]:
    """Every index that a search may use, its checksums compared; and folders of no index."""
    rows = session.execute(
        select(ImageIndex, Collection.name)
        .join(Collection, Collection.id == ImageIndex.collection_id)
        .where(ImageIndex.state.in_(KEPT_INDEXES), Collection.deleted_at.is_(None))
        .order_by(ImageIndex.id)
    ).all()
    damaged_count = 0
    for row, name in rows:
        try:
            check_index(row, settings)
        except IndexNotUsable as error:
            damaged_count += 1
            is_gone = not is_on_disk(row.id, settings)
            why = "its folder is gone" if is_gone else str(error.__cause__ or error)
            advice = "Bring its folder back from a backup."
            if row.state == "ready" and row.first_part_id is None:
                model, boxes = row.embedder.removesuffix(BOXES), looks_at_boxes(row.embedder)
                advice += (
                    f" Without one, “rarefind index build '{name}' --embedder {model}"
                    f"{' --boxes' if boxes else ''}” prepares the images anew; rounds made with "
                    "this index can't be repeated then."
                )
            yield Finding(
                "wrong",
                "index",
                f"Number {row.id} of “{name}” by {row.embedder} can't be used: {why}. {advice}",
            )
    if not damaged_count:
        yield Finding("well", "indexes", f"{len(rows):,}, all as their checksums say.")


def _examine_weights(session: Session, settings: Settings, _now: datetime) -> Iterator[Finding]:
    names = session.scalars(
        select(ImageIndex.embedder)
        .join(Collection, Collection.id == ImageIndex.collection_id)
        .where(
            ImageIndex.state == "ready",
            ImageIndex.first_part_id.is_(None),  # the parts of a combined one are here themselves
            Collection.deleted_at.is_(None),
        )
        .distinct()
        .order_by(ImageIndex.embedder)
    ).all()
    for name in names:
        try:
            gather_files(name, weights_folder=settings.weights_folder)
        except EngineError as error:
            yield Finding(
                "wrong",
                "weights",
                f"{error} Until then images prepared with it can be searched by images of the "
                "collection, but not by words or photos, and no new ones be prepared.",
            )
        else:
            yield Finding("well", "weights", f"Those of {name} are here.")


def _examine_originals(session: Session, settings: Settings, _now: datetime) -> Iterator[Finding]:
    collections = session.execute(
        select(Collection.id, Collection.name).filter_by(deleted_at=None).order_by(Collection.id)
    ).all()
    for collection_id, name in collections:
        stored = _list_in_store(settings, f"originals/{collection_id}")
        files = session.scalars(
            select(Image.file)
            .filter_by(collection_id=collection_id, removed_at=None)
            .order_by(Image.id)
            .execution_options(yield_per=10_000)
        )
        count, gone = _look_for((place_original(file, settings) for file in files), stored)
        if gone:
            yield Finding(
                "wrong",
                "originals",
                f"{len(gone):,} of {count:,} of “{name}” are gone: {_name_some(gone)}. Connect "
                f"their disk, or import their folder again from its new place (“rarefind "
                f"collection add '{name}' FOLDER”): answers stay.",
            )
        else:
            yield Finding("well", "originals", f"All {count:,} of “{name}” are there.")
    stored = _list_in_store(settings, "photos")
    photos = session.scalars(select(Photo.sha256).distinct())
    places = (photo_path(sha256, settings=settings) for sha256 in photos)
    count, gone = _look_for(places, stored)
    if gone:
        yield Finding(
            "wrong",
            "photos",
            f"{len(gone):,} of {count:,} example photos are gone: {_name_some(gone)}. Bring them "
            "back from a backup; searches go on without.",
        )


def _list_in_store(settings: Settings, part: str) -> set[Path]:
    """Where the files of a part of the store would be in the data folder."""
    return {settings.home / file.name for file in list_stored(settings, part)}


def _look_for(files: Iterable[Path], stored: set[Path]) -> tuple[int, list[Path]]:
    """How many files there should be, and those that are neither here nor in the store."""
    count, gone = 0, []
    for file in files:
        count += 1
        if file not in stored and not file.is_file():
            gone.append(file)
    return count, gone


def _name_some(gone: list[Path]) -> str:
    some = ", ".join(str(file) for file in gone[:MOST_NAMED])
    more = len(gone) - MOST_NAMED
    return f"{some} and {more:,} more" if more > 0 else some


def _examine_left_over(session: Session, settings: Settings, now: datetime) -> Iterator[Finding]:
    """What `gc` would take, and files that no row names."""
    due = (
        select(func.count()).select_from(Collection).where(Collection.deleted_at <= now - KEPT_FOR)
    )
    if count := session.scalar(due):
        yield Finding(
            "remark",
            "bin",
            f"{count:,} collections have lain in it for {KEPT_FOR.days} days. “rarefind gc --yes” "
            "deletes them for good.",
        )
    exports = measure_files(list_old_exports(session, settings, now=now))
    if exports[0]:
        yield Finding(
            "remark",
            "exports",
            f"{_say_size(*exports)} of exports, kept long enough. “rarefind gc --yes” removes "
            "them.",
        )
    others = [path for _, path in list_leftovers(session, settings, now=now)]
    size = measure_files(others)
    if size[0]:
        yield Finding(
            "remark",
            "left over",
            f"{_say_size(*size)} in the data folder that nothing needs: {_name_some(others)}. They "
            "do no harm; “rarefind gc” shows them, “rarefind gc --yes” removes them.",
        )
    else:
        yield Finding("well", "left over", "No file in the data folder is there for nothing.")


def _say_size(count: int, size_bytes: int) -> str:
    return f"{count:,} files ({size_bytes / 1e6:,.1f} MB)"
