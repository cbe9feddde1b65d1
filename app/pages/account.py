"""One's own account: name, password, where one is signed in, tokens for programs."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from sqlalchemy.orm import Session

from app.accounts import (
    change_password,
    end_login,
    end_token,
    list_logins,
    make_token,
    rename,
    sign_out_everywhere,
)
from app.database import DbSession
from app.errors import BadInput, NameTaken
from app.pages.addresses import Id, see_other
from app.pages.rendering import render
from app.security import Present, is_named_by_site, list_tokens, read_login_hash
from app.tables import Person

Text = Annotated[str, Form(max_length=1_000)]
ALONE_COOKIE = "rarefind_alone"  # remembered: the first admin goes on without a password
YEAR_S = 365 * 86_400

router = APIRouter(prefix="/account")


@router.get("")
def account_page(request: Request, session: DbSession, person: Present) -> Response:
    """The account."""
    return render_account(request, session, person)


@router.post("/name")
def keep_name(request: Request, session: DbSession, person: Present, name: Text = "") -> Response:
    """Take another name."""
    try:
        rename(session, person, name, by=person, request=request)
    except (BadInput, NameTaken) as error:
        return render_account(request, session, person, wrong={"name": str(error)}, name=name)
    return see_other("/account?done=name")


@router.post("/password")
def keep_password(
    request: Request,
    session: DbSession,
    person: Present,
    name: Text = "",
    old: Text = "",
    new: Text = "",
    again: Text = "",
) -> Response:
    """Change the password; the first one may come with a name."""
    wrong = None
    try:
        if new != again:
            raise BadInput("The two passwords differ. Type the same one twice.")
        with session.begin_nested():  # a password that can't be used leaves the name as it was
            if name and person.password_hash is None:
                rename(session, person, name, by=person, request=request)
            wrong = change_password(session, person, old=old, new=new, request=request)
    except (BadInput, NameTaken) as error:
        session.refresh(person)
        wrong = str(error)
    if wrong:
        return render_account(request, session, person, wrong={"password": wrong}, name=name)
    return see_other("/account?done=password")


@router.post("/alone")
def go_on_alone(request: Request, person: Present) -> Response:  # noqa: ARG001
    """The first admin goes on without a password; home does not ask again in this browser."""
    answer = see_other("/")
    answer.set_cookie(
        ALONE_COOKIE,
        "1",
        max_age=YEAR_S,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return answer


@router.post("/logins/end")
def end_others(request: Request, session: DbSession, person: Present) -> Response:
    """Sign out everywhere but here."""
    sign_out_everywhere(session, person, but=read_login_hash(request))
    return see_other("/account?done=others#signed-in")


@router.post("/logins/{login_id}/end")
def end_one(session: DbSession, person: Present, login_id: Id) -> Response:
    """Sign one browser out."""
    end_login(session, person, login_id)
    return see_other("/account#signed-in")


@router.post("/tokens")
def add_one_token(
    request: Request, session: DbSession, person: Present, name: Text = "", scope: Text = ""
) -> Response:
    """Make a token; it is shown on this answer and never again."""
    try:
        token = make_token(session, person, name, scope)
    except (BadInput, NameTaken) as error:
        return render_account(request, session, person, wrong={"token": str(error)})
    return render_account(request, session, person, token=token)


@router.get("/name")
@router.get("/password")
@router.get("/tokens")
def show_account(request: Request, _person: Present) -> Response:
    """What stands in the address bar after a form was answered leads to the account."""
    return see_other("/account#tokens" if request.url.path.endswith("/tokens") else "/account")


@router.post("/tokens/revoke")
def revoke_one_token(session: DbSession, person: Present, name: Text = "") -> Response:
    """Make a token work no longer."""
    end_token(session, person, name)
    return see_other("/account#tokens")


def render_account(
    request: Request,
    session: Session,
    person: Person,
    *,
    wrong: dict[str, str] | None = None,
    name: str | None = None,
    token: str | None = None,
) -> Response:
    """The page, with what is wrong beside the field, or a new token."""
    session.flush()
    here = read_login_hash(request)
    return render(
        request,
        "account.html",
        status=422 if wrong else 200,
        person=person,
        wrong=wrong or {},
        given_name=name,
        token=token,
        tokens=list_tokens(session, person),
        logins=list_logins(session, person),
        here=here,
        done=request.query_params.get("done"),
        named_by_site=is_named_by_site(request),
        has_accounts=request.app.state.settings.auth == "accounts",
    )
