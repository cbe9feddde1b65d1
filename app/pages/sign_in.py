"""Signing in, by the link that the server prints or by name and password, and signing out."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response

from app.accounts import find_link_owner, set_password_by_link, sign_in_with_password
from app.database import DbSession
from app.errors import BadInput, SignInLinkSpent
from app.pages.addresses import local_path, see_other
from app.pages.rendering import render
from app.security import MaybeSignedIn, set_login_cookie, sign_in, sign_out

Text = Annotated[str, Form(max_length=1_000)]

router = APIRouter()


@router.get("/sign-in")
def open_link(  # nosec B107 # an empty field
    request: Request, session: DbSession, person: MaybeSignedIn, token: str = "", then: str = "/"
) -> Response:
    """Spend the link's token; without one, ask for name and password."""
    home = see_other(local_path(then))
    if not token:
        return home if person else render_sign_in(request, then=then)
    settings = request.app.state.settings
    try:
        cookie = sign_in(session, token, request=request, settings=settings)
    except SignInLinkSpent:
        if person:  # the same link once more, in a browser that it signed in
            return home
        raise
    set_login_cookie(request, home, cookie, settings)
    return home


@router.post("/sign-in")
def sign_in_by_name(  # nosec B107 # an empty field
    request: Request, session: DbSession, name: Text = "", password: Text = "", then: Text = "/"
) -> Response:
    """Sign in by name and password."""
    settings = request.app.state.settings
    done = sign_in_with_password(session, name, password, request=request, settings=settings)
    if done.cookie is None:
        return render_sign_in(
            request,
            status=429 if done.wait_s else 401,
            headers={"Retry-After": str(done.wait_s)} if done.wait_s else None,
            then=then,
            name=name,
            problem=done.problem,
        )
    answer = see_other(local_path(then))
    set_login_cookie(request, answer, done.cookie, settings)
    return answer


@router.get("/password")
def password_form(request: Request, session: DbSession, token: str = "") -> Response:  # nosec B107 # an empty field
    """The form behind a link that sets a password; looking at it does not spend the link."""
    owner = find_link_owner(session, token)
    return render(request, "password.html", owner=owner, token=token, problem=None)


@router.post("/password")
def keep_password(  # nosec B107 # an empty field
    request: Request,
    session: DbSession,
    token: Text = "",
    password: Text = "",
    again: Text = "",
) -> Response:
    """Keep the password and sign its person in."""
    owner = find_link_owner(session, token)
    settings = request.app.state.settings
    try:
        if password != again:
            raise BadInput("The two passwords differ. Type the same one twice.")
        cookie = set_password_by_link(session, token, password, request=request, settings=settings)
    except BadInput as error:
        problem = str(error)
        return render(
            request, "password.html", status=422, owner=owner, token=token, problem=problem
        )
    home = see_other("/")
    set_login_cookie(request, home, cookie, settings)
    return home


@router.post("/sign-out")
def leave(request: Request, session: DbSession) -> Response:
    """End this browser's login session."""
    answer = render_sign_in(request, signed_out=True)
    sign_out(session, request, answer)
    answer.headers["Clear-Site-Data"] = '"cache"'  # images that the next person may not see
    return answer


def render_sign_in(
    request: Request,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    signed_out: bool = False,
    then: str = "/",
    name: str = "",
    problem: str | None = None,
) -> Response:
    """The form for name and password, as it was filled in."""
    return render(
        request,
        "sign_in.html",
        status=status,
        headers=headers,
        signed_out=signed_out,
        then=then,
        name=name,
        problem=problem,
    )
