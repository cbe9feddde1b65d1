"""The home page: my searches, and the collections to search in."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from app.collecting import list_collections
from app.database import DbSession
from app.deleting import KEPT_FOR, list_gone_with
from app.pages.account import ALONE_COOKIE
from app.pages.rendering import render
from app.remarks import list_search_tags
from app.reporting import SearchSummary, list_searches
from app.reviewing import list_asked
from app.security import SignedIn, read_login_hash
from app.tables import Person

MAX_FIND_LENGTH = 200
TAGS_SHOWN = 12

router = APIRouter()


@router.get("/")
def home(
    request: Request,
    session: DbSession,
    person: SignedIn,
    away: bool = False,
    find: Annotated[str, Query(max_length=MAX_FIND_LENGTH)] = "",
) -> Response:
    """Searches to continue; on a first visit, how it works and where to begin.

    With `away`, what was put away; with `find`, the searches that have these words.
    """
    find = find.strip()
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
        gone=list_gone_with(session, person),
        kept_for=KEPT_FOR,
        other_count=len(searches + collections) - len(shown_searches + shown),
        searches=find_among(session, person, shown_searches, find),
        search_count=len(shown_searches),
        find=find,
        max_find_length=MAX_FIND_LENGTH,
        search_tags=list_search_tags(session, person)[:TAGS_SHOWN],
        collections=shown,
        offers_password=by_link
        and person.role == "admin"
        and request.app.state.settings.auth == "accounts"
        and ALONE_COOKIE not in request.cookies,
    )


def find_among(
    session: Session, person: Person, searches: list[SearchSummary], find: str
) -> list[SearchSummary]:
    """Those that have the words; all without any."""
    if not find:
        return searches
    found = {one.search.id for one in list_searches(session, person, find=find)}
    return [one for one in searches if one.search.id in found]
