"""Second opinions: the owner asks and settles, the second person answers images alone."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response
from sqlalchemy.orm import Session

from app.access import get_asked_review, get_own_search
from app.cards import read_card
from app.database import DbSession
from app.deploying import may_folders_be_labels
from app.errors import BadInput
from app.pages.addresses import Count, Id, PageNumber, see_other
from app.pages.rendering import render
from app.pages.searches import read_id
from app.reviewing import (
    SIZES,
    advise,
    ask_review,
    get_review,
    give_opinion,
    list_conflicts,
    list_reviewers,
    list_reviews,
    read_review_page,
    report_review,
    settle,
    withdraw_review,
)
from app.security import SignedIn
from app.tables import Person, Search

DEFAULT_SIZE = 60

router = APIRouter()


async def read_values(request: Request) -> dict[int, str | None]:
    """The answers of a form, by image; without those of images left as they were."""
    form = await request.form()
    return {
        read_id(name.removeprefix("answer-")): str(value) or None
        for name, value in form.items()
        if name.startswith("answer-") and value != form.get(f"was-{name[7:]}")
    }


Values = Annotated[dict[int, str | None], Depends(read_values)]


@router.get("/searches/{search_id}/reviews")
def list_page(request: Request, session: DbSession, person: SignedIn, search_id: Id) -> Response:
    """All second opinions of a search, and a form for another."""
    search = get_own_search(session, person, search_id)
    given = {"name": "", "kind": "sample", "size": str(DEFAULT_SIZE)}
    return render_list(request, session, search, person, given)


@router.post("/searches/{search_id}/reviews")
def ask(
    request: Request,
    session: DbSession,
    person: SignedIn,
    search_id: Id,
    name: Annotated[str, Form(max_length=200)] = "",
    kind: Annotated[str, Form(max_length=20)] = "",
    size: Annotated[str, Form(max_length=9)] = "",
) -> Response:
    """Ask somebody for a second opinion."""
    search = get_own_search(session, person, search_id)
    try:
        if not size.isdecimal():
            raise BadInput("The number of images must be a whole number.")
        ask_review(
            session,
            search,
            person=person,
            reviewer_name=name,
            kind=kind,
            size=int(size),
            indexes=request.app.state.indexes,
        )
    except BadInput as error:
        given = {"name": name, "kind": kind, "size": size}
        return render_list(request, session, search, person, given, problem=str(error))
    return see_other(f"/searches/{search_id}/reviews")


@router.get("/searches/{search_id}/reviews/{review_id}")
def report_page(
    request: Request,
    session: DbSession,
    person: SignedIn,
    search_id: Id,
    review_id: Id,
    along: Count = 0,
) -> Response:
    """How far both agree, and what was settled; `along`: images that were corrected with it."""
    search = get_own_search(session, person, search_id)
    report = report_review(session, get_review(session, search, review_id))
    return render(
        request,
        "review_report.html",
        person=person,
        search=search,
        report=report,
        along=along,
        with_folders=not may_folders_be_labels(session, search.collection_id),
    )


@router.post("/searches/{search_id}/reviews/{review_id}/withdraw")
def withdraw(session: DbSession, person: SignedIn, search_id: Id, review_id: Id) -> Response:
    """Ask no more."""
    search = get_own_search(session, person, search_id)
    withdraw_review(session, get_review(session, search, review_id))
    return see_other(f"/searches/{search_id}/reviews")


@router.get("/searches/{search_id}/reviews/{review_id}/settle")
def settle_page(
    request: Request, session: DbSession, person: SignedIn, search_id: Id, review_id: Id
) -> Response:
    """The conflicts, without who said what."""
    search = get_own_search(session, person, search_id)
    review = get_review(session, search, review_id)
    images = list_conflicts(session, review)
    if not images:
        return see_other(f"/searches/{search_id}/reviews/{review_id}")
    return render(
        request,
        "review.html",
        person=person,
        search=search,
        settles=True,
        action=f"/searches/{search_id}/reviews/{review_id}/settle",
        images=[(image, None) for image in images],
        with_folders=not may_folders_be_labels(session, search.collection_id),
        card=read_card(session, search),
    )


@router.post("/searches/{search_id}/reviews/{review_id}/settle")
def save_settled(
    session: DbSession, person: SignedIn, search_id: Id, review_id: Id, values: Values
) -> Response:
    """Decide conflicts."""
    search = get_own_search(session, person, search_id)
    review = get_review(session, search, review_id)
    along = settle(session, search, review, person=person, values=values)
    where = f"/searches/{search_id}/reviews/{review_id}"
    return see_other(f"{where}?along={along}" if along else where)


@router.get("/reviews/{review_id}")
def review_page(
    request: Request,
    session: DbSession,
    person: SignedIn,
    review_id: Id,
    page: PageNumber | None = None,
) -> Response:
    """Images to give a second opinion on, and nothing of the first."""
    review = get_asked_review(session, person, review_id)
    shown = read_review_page(session, review, page=page)
    return render(
        request,
        "review.html",
        person=person,
        search=review.search,
        settles=False,
        review=review,
        action=f"/reviews/{review_id}",
        images=shown.images,
        with_folders=not may_folders_be_labels(session, review.search.collection_id),
        shown=shown,
        card=read_card(session, review.search),
    )


@router.post("/reviews/{review_id}")
def save_review(
    session: DbSession,
    person: SignedIn,
    review_id: Id,
    values: Values,
    page: Annotated[int, Form(ge=1, le=1_000_000)] = 1,
) -> Response:
    """Keep a page of second answers and go on to the next."""
    review = get_asked_review(session, person, review_id)
    give_opinion(session, review, person=person, values=values)
    after = read_review_page(session, review, page=page + 1)
    if after.answered == after.total or after.page == page:  # else the last page comes for ever
        return see_other(f"/reviews/{review_id}")
    return see_other(f"/reviews/{review_id}?page={after.page}")


def render_list(
    request: Request,
    session: Session,
    search: Search,
    person: Person,
    given: Mapping[str, str],
    problem: str | None = None,
) -> Response:
    """The page, with what was typed and what is wrong with it."""
    return render(
        request,
        "reviews.html",
        status=422 if problem else 200,
        person=person,
        search=search,
        reviews=list_reviews(session, search),
        reviewers=list_reviewers(session, search),
        advice=advise(session, search, request.app.state.indexes),
        given=given,
        problem=problem,
        sizes=SIZES,
    )
