"""The page of help: how a search goes, the keys, what the words mean, who may do what."""

from fastapi import APIRouter, Request, Response

from app.cards import REASON_TITLES
from app.pages.people import ROLE_WORDS
from app.pages.rendering import render
from app.security import SignedIn

router = APIRouter()


@router.get("/help")
def help_page(request: Request, person: SignedIn) -> Response:
    """Help, for every role."""
    return render(request, "help.html", person=person, reasons=REASON_TITLES, roles=ROLE_WORDS)
