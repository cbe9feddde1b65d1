"""The home page: my searches, and the collections to search in."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from app.collecting import list_collections
from app.database import DbSession
from app.pages.rendering import render
from app.reporting import list_searches
from app.security import SignedIn

router = APIRouter()


@router.get("/")
def home(request: Request, session: DbSession, person: SignedIn) -> Response:
    """Searches to continue; on a first visit, how it works and where to begin."""
    return render(
        request,
        "home.html",
        person=person,
        searches=list_searches(session, person),
        collections=list_collections(session, now=datetime.now(UTC)),
    )
