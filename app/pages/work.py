"""Work: what waits, what runs, what ended, with Stop and Try again."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from app.database import DbSession
from app.jobs import get_job, has_worker, stop_job, try_again
from app.pages.addresses import Id, local_path, see_other
from app.pages.rendering import render, wants_fragment
from app.security import SignedIn
from app.work import list_commands, list_work

ReturnTo = Annotated[str, Form(max_length=1_000)]

router = APIRouter(prefix="/work")


@router.get("")
def work_page(request: Request, session: DbSession, person: SignedIn) -> Response:
    """All long work that the person may see; a part of the page looks again by itself."""
    template = "_work.html" if wants_fragment(request) else "work.html"
    now = datetime.now(UTC)
    return render(
        request,
        template,
        person=person,
        work=list_work(session, person, now=now),
        commands=list_commands(session, person, now=now),
        has_worker=has_worker(session),
    )


@router.post("/{job_id}/stop")
def stop(
    session: DbSession, person: SignedIn, job_id: Id, return_to: ReturnTo = "/work"
) -> Response:
    """Stop a job; what it has done is kept."""
    stop_job(session, get_job(session, person, job_id))
    return see_other(local_path(return_to))


@router.post("/{job_id}/again")
def again(
    session: DbSession, person: SignedIn, job_id: Id, return_to: ReturnTo = "/work"
) -> Response:
    """Go on with a job that stopped or failed."""
    try_again(session, get_job(session, person, job_id), person)
    return see_other(local_path(return_to))
