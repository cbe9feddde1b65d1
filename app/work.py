"""Long work as people see it: what waits, what runs and how fast, what ended and how."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, case, exists, or_, select
from sqlalchemy.orm import Session, aliased, contains_eager, joinedload

from app.access import sees_collection
from app.tables import Collection, ImageIndex, Import, Job, Person

ENDED_SHOWN = 50  # newest first
SILENT_AFTER_S = 120  # a chunk of the slowest embedder on one core stays far below
PREPARING = ("import", "index", "update", "combine")  # kinds of jobs; others only read, or help
UNITS = {
    "importing": "file",
    "indexing": "image",
    "playing": "run",
    "copying": "picture",
    "listing": "image",
}


@dataclass(frozen=True)
class Work:
    """One job, in words and figures."""

    job: Job
    what: str
    address: str
    now_doing: str
    unit: str
    per_second: float | None
    left_s: float | None
    is_silent: bool
    may_run: bool

    @property
    def can_stop(self) -> bool:
        """Whether a Stop would still do something."""
        return self.job.state in ("waiting", "running") and not self.job.stop_asked

    @property
    def can_try_again(self) -> bool:
        """Whether it ended without being done, and may be gone on with."""
        return self.may_run and self.job.state in ("stopped", "failed")


@dataclass(frozen=True)
class Command:
    """Work that somebody's command does in a process of its own, as far as its rows tell."""

    collection: Collection
    what: str
    now_doing: str
    unit: str
    done_count: int
    total_count: int
    is_silent: bool


def list_work(session: Session, person: Person, *, now: datetime) -> dict[str, list[Work]]:
    """Work by where it stands: running, waiting, ended. Admins see all, others their own.

    Only of collections the person sees, so of none in the bin.
    """
    query = (
        select(Job)
        .join(Job.collection)
        .where(sees_collection(person))
        .options(contains_eager(Job.collection), joinedload(Job.person))
    )
    if person.role != "admin":
        query = query.filter_by(person_id=person.id)
    unfinished = session.scalars(
        query.where(Job.state.in_(("waiting", "running"))).order_by(
            case((Job.state == "running", 0), else_=1), Job.made_at, Job.id
        )
    ).all()
    ended = session.scalars(
        query.where(Job.state.not_in(("waiting", "running")))
        .order_by(Job.ended_at.desc(), Job.id.desc())
        .limit(ENDED_SHOWN)
    ).all()
    return {
        "running": [
            describe_work(job, person, now) for job in unfinished if job.state == "running"
        ],
        "waiting": [
            describe_work(job, person, now) for job in unfinished if job.state == "waiting"
        ],
        "ended": [describe_work(job, person, now) for job in ended],
    }


def list_commands(session: Session, person: Person, *, now: datetime) -> list[Command]:
    """What commands do that prepare collections, for admins: they alone see the work of others."""
    if person.role != "admin":
        return []
    imports = session.execute(
        select(Import, Collection)
        .join(Collection, Collection.id == Import.collection_id)
        .where(Import.state == "running", sees_collection(person), ~_is_of_job(Import))
        .order_by(Import.id)
    )
    newer = aliased(ImageIndex)
    builds = session.execute(
        select(ImageIndex, Collection)
        .join(Collection, Collection.id == ImageIndex.collection_id)
        .where(
            ImageIndex.state == "building",
            sees_collection(person),
            ~_is_of_job(ImageIndex),
            ~exists().where(
                newer.collection_id == ImageIndex.collection_id,
                newer.embedder == ImageIndex.embedder,
                newer.id > ImageIndex.id,
            ),
        )
        .order_by(ImageIndex.id)
    )
    return [
        Command(
            collection=collection,
            what="Add images",
            now_doing="Reading the files" if run.found_count else "Looking for files",
            unit="file",
            done_count=run.done_count,
            total_count=run.found_count,
            is_silent=_is_silent(run.updated_at, now),
        )
        for run, collection in imports
    ] + [
        Command(
            collection=collection,
            what=f"Prepare with {build.embedder}",
            now_doing="Learning what each image looks like",
            unit="image",
            done_count=build.done_count,
            total_count=build.image_count,
            is_silent=_is_silent(build.updated_at, now),
        )
        for build, collection in builds
    ]


def _is_of_job(made: type[Import] | type[ImageIndex]) -> ColumnElement[bool]:
    """The condition that a job was at work when an import or index said last how it stands."""
    return exists().where(
        Job.collection_id == made.collection_id,
        Job.kind.in_(PREPARING),
        Job.started_at <= made.updated_at,
        or_(Job.ended_at.is_(None), Job.ended_at >= made.updated_at),
    )


def _is_silent(updated_at: datetime, now: datetime) -> bool:
    return (now - updated_at).total_seconds() > SILENT_AFTER_S


def may_run(person: Person, job: Job) -> bool:
    """Whether the person's role, which may be another by now, is one that may ask for the work."""
    if job.kind == "export":  # whoever sees a search may; the file is nobody else's
        return job.person_id == person.id
    return person.role == "admin" or (job.kind == "replay" and person.role == "evaluator")


def describe_work(job: Job, person: Person, now: datetime) -> Work:
    """A job as the person sees it."""
    per_second = left_s = None
    if job.step_started_at is not None:
        elapsed_s = (job.updated_at - job.step_started_at).total_seconds()
        if job.done_count > job.step_started_count and elapsed_s >= 3:
            per_second = (job.done_count - job.step_started_count) / elapsed_s
            waited_s = (now - job.updated_at).total_seconds()
            left_s = max(0.0, (job.total_count - job.done_count) / per_second - waited_s)
    return Work(
        job=job,
        what=_say_what(job, person),
        address=_find_address(job, person),
        now_doing=_say_step(job),
        unit=UNITS.get(job.step or "", "step"),
        per_second=per_second,
        left_s=left_s,
        is_silent=job.state == "running" and _is_silent(job.updated_at, now),
        may_run=may_run(person, job) and job.collection.deleted_at is None,
    )


def _say_what(job: Job, person: Person) -> str:
    match job.kind:
        case "import":
            return "Add images"
        case "index" | "help":
            what = "Prepare" if job.kind == "index" else "Help to prepare"
            return f"{what} with {job.arguments['embedder']}"
        case "update":
            return "Prepare without removed images, and with those put back"
        case "combine":
            return f"Combine {job.arguments['first']} and {job.arguments['second']}"
        case "export":  # an admin need not see the search
            own = f"Export “{job.arguments['target']}” as {job.arguments['name']}"
            return own if job.person_id == person.id else "Export a search"
    return "Replay searches"


def _find_address(job: Job, person: Person) -> str:
    collection = f"/collections/{job.collection_id}"
    if job.kind == "export" and job.person_id == person.id:
        return f"/searches/{job.arguments['search_id']}/exports"
    if job.kind == "replay":
        return f"{collection}/replays/{job.arguments['replay_id']}"
    return collection


def _say_step(job: Job) -> str:
    steps = {
        "importing": "Reading the files" if job.total_count else "Looking for files",
        "loading": "Getting ready to look at the images",
        "indexing": "Learning what each image looks like",
        "combining": "Putting two indexes side by side",
        "playing": "Playing runs",
        "gathering": "Gathering what goes into it",
        "copying": "Copying pictures",
        "listing": "Writing a row for each image",
        "writing": "Writing the file",
    }
    return steps.get(job.step or "", "Starting")
