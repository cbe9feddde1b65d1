"""Events of a collection: how its images are grouped, and grouping them anew."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from sqlalchemy.orm import Session

from app.access import get_collection
from app.database import DbSession
from app.deploying import may_see_folders
from app.errors import BadInput, NoIndexYet
from app.events import (
    MOST_IMAGES,
    USUAL_GAP_S,
    USUAL_LIKENESS,
    describe_grouping,
    group_images,
    make_rule,
)
from app.pages.addresses import Id, see_other
from app.pages.rendering import render
from app.security import Admin, SignedIn
from app.tables import Person

Text = Annotated[str, Form(max_length=500)]

OFFERED = ("bursts", "near-duplicates", "none")  # the first that can be done

router = APIRouter(prefix="/collections/{collection_id}/events")


@router.get("")
def events(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    after: str = "",
) -> Response:
    """How the images are grouped, with the largest events; an admin may group them anew."""
    return render_events(request, session, person, collection_id, is_new=after == "grouped")


@router.post("")
def group(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    kind: Text = "",
    gap_s: Text = "",
    column: Text = "",
    likeness: Text = "",
    apart_s: Text = "",
) -> Response:
    """Group the images anew."""
    get_collection(session, admin, collection_id)
    given = {
        "kind": kind,
        "gap_s": gap_s,
        "column": column,
        "likeness": likeness,
        "apart_s": apart_s,
    }
    try:
        with session.begin_nested():
            group_images(
                session,
                collection_id,
                make_rule(
                    kind,
                    gap_s=apart_s if kind == "near-duplicates" else gap_s,
                    column=column,
                    likeness=likeness,
                ),
                person=admin,
                indexes=request.app.state.indexes,
            )
    except (BadInput, NoIndexYet) as error:
        return render_events(request, session, admin, collection_id, wrong=str(error), given=given)
    return see_other(f"/collections/{collection_id}/events?after=grouped")


def render_events(
    request: Request,
    session: Session,
    person: Person,
    collection_id: int,
    *,
    wrong: str | None = None,
    given: Mapping[str, str] | None = None,
    is_new: bool = False,
) -> Response:
    """The page, with what was given and what is wrong with it."""
    collection = get_collection(session, person, collection_id)
    view = describe_grouping(session, collection_id)
    now = view.grouping
    possible = {
        "bursts": view.timed_count > 0,
        "near-duplicates": view.may_compare,
        "column": bool(view.columns),
        "none": True,
    }
    wanted = given["kind"] if given else now.kind if now else "bursts"
    # What can't be done can't be chosen: by the rule of now there may be nothing to group.
    kind = wanted if possible.get(wanted) else next(one for one in OFFERED if possible[one])
    usual = {
        "gap_s": now.gap_s if now and now.kind == "bursts" else USUAL_GAP_S,
        "column": now.column_name if now else "",
        "likeness": now.likeness if now and now.likeness else USUAL_LIKENESS,
        "apart_s": now.gap_s if now and now.kind == "near-duplicates" else USUAL_GAP_S,
    }
    return render(
        request,
        "events.html",
        status=422 if wrong else 200,
        person=person,
        collection=collection,
        with_folders=may_see_folders(session, person, collection.id),
        view=view,
        possible=possible,
        given={**(usual if given is None else given), "kind": kind},
        wrong=wrong,
        is_new=is_new,
        most=MOST_IMAGES,
    )
