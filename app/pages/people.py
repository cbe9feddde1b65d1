"""The people of this Rarefind, for admins: adding them, roles, links for passwords; the log."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from sqlalchemy.orm import Session

from app.accounts import (
    add_person,
    change_role,
    close_account,
    get_account,
    list_accounts,
    list_awaited,
    rename,
    reset_password,
)
from app.audit import AUDIT_KINDS, list_events
from app.database import DbSession
from app.errors import BadInput, NameTaken, NotAllowed
from app.pages.addresses import Id, PageNumber, see_other
from app.pages.rendering import render
from app.security import Admin, get_present
from app.tables import Person

Text = Annotated[str, Form(max_length=1_000)]
ROLE_WORDS = {
    "viewer": "looks at collections and at searches that are open to view",
    "ecologist": "searches: opens searches of their own and answers",
    "evaluator": "searches, and replays searches on known labels",
    "admin": "everything: collections, people, the log",
}
# The answer shows a link that sets a password: a token that reads it could sign in as anybody.
IN_PERSON = [Depends(get_present)]

router = APIRouter()


@router.get("/people")
def people_page(request: Request, session: DbSession, admin: Admin) -> Response:
    """Everybody with an account."""
    return render_people(request, session, admin)


@router.post("/people", dependencies=IN_PERSON)
def add_one(
    request: Request, session: DbSession, admin: Admin, name: Text = "", role: Text = "ecologist"
) -> Response:
    """Add a person; the answer shows the link by which they set their password."""
    try:
        made = add_person(session, name, role, by=admin)
    except (BadInput, NameTaken) as error:
        form = {"name": name, "role": role}
        return render_people(request, session, admin, form=form, wrong=str(error))
    return render_link(request, session, admin, made)


@router.post("/people/{person_id}/name")
def set_name(
    request: Request, session: DbSession, admin: Admin, person_id: Id, name: Text = ""
) -> Response:
    """Give a person another name."""
    try:
        rename(session, get_account(session, person_id), name, by=admin, request=request)
    except (BadInput, NameTaken) as error:
        return render_people(request, session, admin, problem=str(error))
    return see_other(f"/people#person-{person_id}")


@router.post("/people/{person_id}/role")
def set_role(
    request: Request, session: DbSession, admin: Admin, person_id: Id, role: Text = ""
) -> Response:
    """Give a person another role."""
    try:
        change_role(session, get_account(session, person_id), role, by=admin)
    except NotAllowed as error:
        return render_people(request, session, admin, problem=str(error))
    return see_other("/people")


@router.post("/people/{person_id}/reset", dependencies=IN_PERSON)
def reset(
    request: Request,
    session: DbSession,
    admin: Admin,
    person_id: Id,
    link_count: Annotated[int | None, Form()] = None,
) -> Response:
    """Sign a person out everywhere; the answer shows the link by which they set a new password."""
    whose = get_account(session, person_id)
    try:
        return render_link(request, session, admin, whose, link_count=link_count)
    except BadInput as error:
        return render_people(request, session, admin, problem=str(error))


@router.post("/people/{person_id}/close")
def close(request: Request, session: DbSession, admin: Admin, person_id: Id) -> Response:
    """Let a person in no more."""
    try:
        close_account(session, get_account(session, person_id), by=admin)
    except NotAllowed as error:
        return render_people(request, session, admin, problem=str(error))
    return see_other("/people")


@router.get("/people/{person_id}/name")
@router.get("/people/{person_id}/role")
@router.get("/people/{person_id}/reset")
@router.get("/people/{person_id}/close")
def show_in_list(_admin: Admin, person_id: Id) -> Response:
    """What stands in the address bar after a form was answered leads to the list."""
    return see_other(f"/people#person-{person_id}")


@router.get("/log")
def log_page(
    request: Request,
    session: DbSession,
    admin: Admin,
    kind: str = "",
    who: str = "",
    page: PageNumber = 1,
) -> Response:
    """Who did what, with filters."""
    return render(
        request,
        "log.html",
        person=admin,
        kinds=AUDIT_KINDS,
        kind=kind,
        who=who,
        log=list_events(session, kind=kind, who=who, page=page),
    )


def render_link(
    request: Request,
    session: Session,
    admin: Person,
    whose: Person,
    *,
    link_count: int | None = None,
) -> Response:
    """The page with a new link for a person; it is shown this once."""
    settings = request.app.state.settings
    link = reset_password(
        session,
        whose,
        by=admin,
        base_url=settings.public_url or str(request.base_url),  # its host is one we know
        settings=settings,
        link_count=link_count,
    )
    return render_people(request, session, admin, link=link, link_for=whose)


def render_people(
    request: Request,
    session: Session,
    admin: Person,
    *,
    form: dict[str, str] | None = None,
    wrong: str | None = None,
    problem: str | None = None,
    link: str | None = None,
    link_for: Person | None = None,
) -> Response:
    """The list, with the form as it was filled in."""
    accounts = list_accounts(session)
    return render(
        request,
        "people.html",
        status=422 if wrong or problem else 200,
        person=admin,
        accounts=accounts,
        awaited=list_awaited(accounts, request.app.state.settings),
        roles=ROLE_WORDS,
        is_local=request.app.state.settings.auth == "local",
        form=form or {"name": "", "role": "ecologist"},
        wrong=wrong,
        problem=problem,
        link=link,
        link_for=link_for,
        link_days=request.app.state.settings.password_link_days,
    )
