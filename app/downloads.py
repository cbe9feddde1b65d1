"""Exports that take long: asked for, made by a job, and downloaded by whoever asked."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import BigInteger, cast, select
from sqlalchemy.orm import Session

from app.access import get_search, is_trusted
from app.audit import note
from app.errors import NotFound
from app.exports.files import export_path, gone_at
from app.exports.offers import check_offered
from app.jobs import UNFINISHED, add_job
from app.settings import Settings
from app.store import fetch_file
from app.tables import ExportFile, Job, Person, Search
from app.work import Work, describe_work

MOST_LISTED = 20  # of one search and person, the newest first


@dataclass(frozen=True)
class MadeExport:
    """A file that was asked for, and how its making stands."""

    export: ExportFile
    work: Work
    gone_at: datetime | None  # of one that can be downloaded

    @property
    def state(self) -> str:
        """`waiting`, `running`, `ready`, `stopped` or `failed`."""
        return "ready" if self.export.ready_at is not None else self.work.job.state


def ask_for_file(session: Session, person: Person, search: Search, name: str) -> ExportFile:
    """Have an export made as a file; one that is being made for the person is not made twice."""
    check_offered(session, search, name)
    session.refresh(search, with_for_update={"of": Search})  # a double click waits here
    for export, job in _list_pairs(session, person, search.id):
        if export.name == name and job.state in UNFINISHED:
            return export
    export = ExportFile(search_id=search.id, person_id=person.id, name=name)
    session.add(export)
    session.flush()
    add_job(
        session,
        "export",
        collection_id=search.collection_id,
        person=person,
        export_id=export.id,
        search_id=search.id,
        target=search.target_name,
        name=name,
    )
    note(session, person, "export", f"Exported “{search.target_name}” as {name}", search=search)
    return export


def list_made(
    session: Session, person: Person, search: Search, *, settings: Settings, now: datetime
) -> list[MadeExport]:
    """What a person had made of a search and can still have, the newest first."""
    made = [
        _describe(export, job, person, settings, now)
        for export, job in _list_pairs(session, person, search.id)
        if not _is_of_before(session, person, export)
    ]
    return [one for one in made if one.gone_at is None or one.gone_at > now][:MOST_LISTED]


def get_made(
    session: Session, person: Person, export_id: int, *, settings: Settings, now: datetime
) -> MadeExport:
    """A file that the person asked for, if they still see its search."""
    export = session.get(ExportFile, export_id)
    if export is None or export.person_id != person.id:
        raise NotFound("There is no such file, or somebody else had it made.")
    get_search(session, person, export.search_id)
    pairs = _list_pairs(session, person, export.search_id)
    job = next((job for one, job in pairs if one.id == export_id), None)
    if job is None:
        raise NotFound("That file was made anew meanwhile. Its page has the new one.")
    made = _describe(export, job, person, settings, now)
    if _is_of_before(session, person, export):
        raise NotFound("What may be shown has changed since. Have it made again.")
    if made.gone_at is not None and made.gone_at <= now:
        raise NotFound("That file was kept for some days, and is removed. Have it made again.")
    return made


def get_file(made: MadeExport, settings: Settings) -> Path:
    """Where a file is that can be downloaded."""
    path = export_path(settings, made.export)
    if made.export.ready_at is None:
        raise NotFound("That file is not made yet. Its page says how far it is.")
    if not fetch_file(settings, path):
        raise NotFound("That file is not in its place any more. Have it made again.")
    return path


def _list_pairs(session: Session, person: Person, search_id: int) -> list[tuple[ExportFile, Job]]:
    job_of = cast(Job.arguments["export_id"].as_string(), BigInteger) == ExportFile.id
    query = select(ExportFile, Job).join(Job, job_of & (Job.kind == "export"))
    query = query.where(ExportFile.search_id == search_id, ExportFile.person_id == person.id)
    # Both as they are at one moment: a job that is done has its file.
    query = query.order_by(ExportFile.id.desc()).execution_options(populate_existing=True)
    return [(one, job) for one, job in session.execute(query)]


def _is_of_before(session: Session, person: Person, export: ExportFile) -> bool:
    """Whether a file may hold what its person is not shown any more."""
    collection = export.search.collection
    # The one that it was begun with: a change that was not committed by then may be earlier.
    if export.ready_at is None or export.guarded_at == collection.guarded_at:
        return False
    return not is_trusted(session, person, collection)


def _describe(
    export: ExportFile, job: Job, person: Person, settings: Settings, now: datetime
) -> MadeExport:
    return MadeExport(export, describe_work(job, person, now), gone_at(settings, export))
