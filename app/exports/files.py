"""Exports as files of the data folder: made whole or not at all, kept some days, then removed.

A file is written under another name in `<home>/exports/<id>` and takes its own only when all of it
is on the disk; only then does its row say that it is ready. Killed in between, it is made again.
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path

from sqlalchemy import BigInteger, Select, cast, event, exists, func, select
from sqlalchemy.orm import Session

from app.access import get_search
from app.database import Database
from app.errors import DiskFull
from app.exports.offers import Told, write_file
from app.indexing import OpenIndexes
from app.settings import Settings
from app.store import delete_folders, list_stored, put_files
from app.tables import ExportFile, Job
from app.workers import Readers

TELL_S = 0.5  # between words on how far it is; each costs a look at the database


def export_path(settings: Settings, export: ExportFile) -> Path:
    """Where the file of an export is, once it is ready."""
    return _folder(settings, export.id) / export.name


def gone_at(settings: Settings, export: ExportFile) -> datetime | None:
    """When a ready file is removed."""
    return export.ready_at and export.ready_at + timedelta(days=settings.export_days)


def make_file(database: Database, settings: Settings, export_id: int, *, tell: Told) -> None:
    """Write an export's file, as its search is at this moment and its person sees it.

    `tell` is called with a step, how much of it is done and its whole, where that is known; what it
    raises ends the work, and nothing of it is left.
    """
    progress = _Progress(settings, tell)
    with Readers(settings) as readers, database.session() as session:
        # One moment for all of its queries, though others go on answering.
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        export = session.get(ExportFile, export_id)
        if export is None or export.ready_at is not None:
            return  # its search is gone for good; or it was made, and its worker died since
        # Formats read for long before their first byte: each query is a moment to be stopped at.
        event.listen(session, "do_orm_execute", lambda _: progress.breathe())
        search = get_search(session, export.person, export.search_id)
        guarded_at = search.collection.guarded_at
        content = write_file(
            session,
            search,
            export.name,
            indexes=OpenIndexes(settings, patience_s=inf),
            settings=settings,
            now=datetime.now(UTC),
            person=export.person,
            readers=readers,
            told=progress.told,
        )
        path = export_path(settings, export)
        size_bytes = _write_whole(content, path, progress)
        put_files(settings, [path])
    gone: list[Path] = []
    with database.session() as session:
        export = session.get(ExportFile, export_id)
        if export is not None:
            export.size_bytes, export.ready_at = size_bytes, datetime.now(UTC)
            export.guarded_at = guarded_at
            # Made anew, it takes the place of the one of before: a disk holds each once.
            same = {key: getattr(export, key) for key in ("person_id", "search_id", "name")}
            made_before = (ExportFile.id < export.id) & ExportFile.ready_at.is_not(None)
            query = select(ExportFile).filter_by(**same).where(made_before)
            for earlier in session.scalars(query.with_for_update()):
                gone.append(_folder(settings, earlier.id))
                session.delete(earlier)
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True)
    delete_folders(settings, gone)


def sweep_exports(database: Database, settings: Settings, *, now: datetime) -> int:
    """Remove files that were kept long enough, and what no row knows any more; the bytes freed."""
    with database.session() as session:
        for export in session.scalars(_old(settings, now).with_for_update(skip_locked=True)):
            session.delete(export)
    # Rows first: a folder without a row is swept at the next time, a row without its file misleads.
    with database.session() as session:
        folders = _list_unknown(session, settings)
        stored = _list_unknown_stored(session, settings)
    size_bytes = 0
    for folder in folders:
        size_bytes += sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
        shutil.rmtree(folder, ignore_errors=True)
    delete_folders(settings, stored)
    return size_bytes


def list_old_exports(session: Session, settings: Settings, *, now: datetime) -> list[Path]:
    """The folders that `sweep_exports` removes."""
    old = [_folder(settings, export.id) for export in session.scalars(_old(settings, now))]
    return [*_list_unknown(session, settings), *old]


def _list_unknown(session: Session, settings: Settings) -> list[Path]:
    # Of these folders alone: one that is made from here on may be of a row nobody has seen yet.
    folders = list((settings.home / "exports").glob("*"))
    known = {str(one) for one in session.scalars(select(ExportFile.id))}
    return [folder for folder in folders if folder.name not in known]


def _list_unknown_stored(session: Session, settings: Settings) -> set[Path]:
    names = {file.name.split("/")[1] for file in list_stored(settings, "exports")}
    if not names:
        return set()
    known = {str(one) for one in session.scalars(select(ExportFile.id))}
    return {settings.home / "exports" / name for name in names - known}


def _old(settings: Settings, now: datetime) -> Select[ExportFile]:
    due = now - timedelta(days=settings.export_days)
    under_way = exists().where(
        Job.kind == "export",
        cast(Job.arguments["export_id"].as_string(), BigInteger) == ExportFile.id,
        Job.state.in_(("waiting", "running")),
    )
    return select(ExportFile).where(
        func.coalesce(ExportFile.ready_at, ExportFile.asked_at) < due, ~under_way
    )


class _Progress:
    """Says now and then how far it is; whoever listens may end the work."""

    def __init__(self, settings: Settings, tell: Told) -> None:
        self._settings = settings
        self._tell = tell
        self._at: tuple[str, int, int] = ("gathering", 0, 0)
        self._is_counted = False
        self._next_s = 0.0

    def told(self, step: str, done: int, total: int) -> None:
        """A format that knows how much there is to do."""
        self._at, self._is_counted = (step, done, total), True
        self.breathe()

    def written(self, size_bytes: int) -> None:
        """How much of the file is there; of formats that don't know more, that is said."""
        if not self._is_counted:
            self._at = ("writing", size_bytes, 0)
        self.breathe()

    def breathe(self) -> None:
        """A moment at which the work may end."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + TELL_S
        self._tell(*self._at)
        free_bytes = shutil.disk_usage(self._settings.home).free
        if free_bytes < self._settings.keep_free_gb * 1e9:
            raise DiskFull(
                "The disk of Rarefind's data folder has no room for this file. Make room, then "
                "try again."
            )


def _write_whole(content: Iterable[bytes], path: Path, progress: _Progress) -> int:
    """Write a file that is there as a whole or not at all; its size."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in path.parent.iterdir():  # by a worker that was killed
        with suppress(OSError):  # on a shared folder, one that is still open somewhere
            left.unlink()
    part = path.parent / f"{uuid.uuid4().hex}.part"  # a worker that lost the job may still write
    try:
        with part.open("wb") as file:
            for some in content:
                file.write(some)
                progress.written(file.tell())
            file.flush()
            os.fsync(file.fileno())
            size_bytes = file.tell()
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return size_bytes


def _folder(settings: Settings, export_id: int) -> Path:
    return settings.home / "exports" / str(export_id)
