"""The home page: my searches, and the collections to search in."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from app.collecting import list_collections
from app.database import DbSession
from app.pages.account import ALONE_COOKIE
from app.pages.rendering import render
from app.reporting import list_searches
from app.reviewing import list_asked
from app.security import SignedIn, read_login_hash

router = APIRouter()


@router.get("/")
def home(request: Request, session: DbSession, person: SignedIn, away: bool = False) -> Response:
    """Searches to continue; on a first visit, how it works and where to begin.

    With `away`, what was put away.
    """
    searches = list_searches(session, person)
    collections = list_collections(session, person, now=datetime.now(UTC))
    shown_searches = [one for one in searches if bool(one.search.archived_at) == away]
    shown = [one for one in collections if bool(one.collection.archived_at) == away]
    by_link = read_login_hash(request) is not None and person.password_hash is None
    return render(
        request,
        "home.html",
        person=person,
        away=away,
        asked=list_asked(session, person),
        other_count=len(searches + collections) - len(shown_searches + shown),
        searches=shown_searches,
        collections=shown,
        offers_password=by_link
        and person.role == "admin"
        and request.app.state.settings.auth == "accounts"
        and ALONE_COOKIE not in request.cookies,
    )
