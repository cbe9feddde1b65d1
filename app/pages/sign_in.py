"""Signing in by the link that the server prints, and signing out."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.database import DbSession
from app.errors import SignInLinkSpent
from app.pages.rendering import render
from app.security import MaybeSignedIn, set_login_cookie, sign_in, sign_out

router = APIRouter()


@router.get("/sign-in")
def open_link(
    request: Request, session: DbSession, person: MaybeSignedIn, token: str = ""
) -> Response:
    """Spend the link's token; without one, say where links come from."""
    home = RedirectResponse("/", status_code=303)
    if not token:
        return home if person else render(request, "sign_in.html", signed_out=False)
    settings = request.app.state.settings
    try:
        cookie = sign_in(session, token, settings=settings)
    except SignInLinkSpent:
        if person:  # the same link once more, in a browser that it signed in
            return home
        raise
    set_login_cookie(request, home, cookie, settings)
    return home


@router.post("/sign-out")
def leave(request: Request, session: DbSession) -> Response:
    """End this browser's login session."""
    answer = render(request, "sign_in.html", signed_out=True)
    sign_out(session, request, answer)
    return answer
