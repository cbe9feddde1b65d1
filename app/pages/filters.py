"""Filters on pages: their fields, their chips, and the filter of a search that is under way."""

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy.orm import Session

from app.access import get_own_search
from app.adjusting import filter_search, read_search_filter
from app.database import DbSession
from app.errors import BadInput
from app.filtering import (
    GRID,
    MONTHS,
    SEASONS,
    Filter,
    Pairs,
    count_kept,
    cover_filter,
    describe_offer,
    list_chips,
    pick_pairs,
    read_filter,
)
from app.pages.addresses import Id, see_other
from app.pages.rendering import render
from app.security import SignedIn
from app.sensitive import read_sight
from app.tables import Person, Search

router = APIRouter(prefix="/searches/{search_id}/filter")


async def read_fields(request: Request) -> Pairs:
    """A form's fields that are a filter's."""
    form = await request.form()
    fields = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
    return tuple(pick_pairs(fields))


FilterFields = Annotated[Pairs, Depends(read_fields)]


@router.get("")
def show(request: Request, session: DbSession, person: SignedIn, search_id: Id) -> Response:
    """The filter of a search, to be changed."""
    search = get_own_search(session, person, search_id)
    return render_filter(request, session, person, search, read_search_filter(search))


@router.post("")
def change(
    request: Request, session: DbSession, person: SignedIn, search_id: Id, pairs: FilterFields
) -> Response:
    """Let the next rounds show only what the filter keeps."""
    search = get_own_search(session, person, search_id)
    before = read_search_filter(search)
    try:
        chosen = read_filter(session, search.collection_id, pairs, person=person)
        with session.begin_nested():
            filter_search(session, search, chosen)
    except BadInput as error:
        return render_filter(
            request, session, person, search, before, problem=str(error), typed=pairs
        )
    return see_other(f"/searches/{search.id}")


def render_filter(
    request: Request,
    session: Session,
    person: Person,
    search: Search,
    chosen: Filter,
    problem: str | None = None,
    typed: Pairs | None = None,
) -> Response:
    """The page of a search's filter, with what is wrong."""
    return render(
        request,
        "search_filter.html",
        status=422 if problem else 200,
        person=person,
        search=search,
        problem=problem,
        **describe_filter(
            session, person, search.collection_id, chosen, with_offer=True, typed=typed
        ),
    )


def describe_filter(
    session: Session,
    person: Person,
    collection_id: int,
    chosen: Filter,
    *,
    with_offer: bool,
    typed: Pairs | None = None,
) -> dict[str, Any]:
    """What templates need of a filter; with what it may offer where its form is shown.

    The form holds what was `typed`, if that can't be used.
    """
    kept = count_kept(session, collection_id, chosen)
    sight = read_sight(session, person, collection_id)
    chosen = Filter(cover_filter(chosen, sight).without(GRID))  # which is not taken from outside
    return {
        "place_size": sight.size,
        "chosen": chosen,
        "typed": chosen if typed is None else Filter(tuple(typed)),
        "kept": kept,
        "image_count": kept.total,
        "filter_query": urlencode(chosen.pairs),
        "chips": [(chip, urlencode(chip.rest)) for chip in list_chips(session, chosen)],
        "offer": describe_offer(session, person, collection_id) if with_offer else None,
        "seasons": SEASONS,
        "months": MONTHS,
    }
