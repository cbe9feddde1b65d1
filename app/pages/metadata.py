"""Tables brought to a collection: what they hold, rows without an image, adding, removing one."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Request, Response, UploadFile
from sqlalchemy.orm import Session

from app.access import get_collection
from app.database import DbSession
from app.detecting import USUAL_THRESHOLD, add_detections, is_detections
from app.errors import BadInput, LabelsNotUsable
from app.events import group_anew
from app.forgetting import (
    describe_column_removal,
    describe_table_removal,
    forget_column,
    remove_table,
)
from app.jobs import add_job
from app.metadata import (
    TableSummary,
    add_table,
    choose_columns,
    describe_metadata,
    find_name,
    get_column,
    get_table,
    mark_column,
)
from app.pages.addresses import LARGEST_ID, Id, PageNumber, see_other
from app.pages.rendering import render
from app.security import Admin, SignedIn
from app.sensitive import read_sight
from app.tables import Collection, Person
from app.taking import NONE, ORDERS, ROLES, is_told, read_choice

MAX_NAME_LENGTH = 200

Taking = Annotated[str | None, Form(max_length=500)]

router = APIRouter(prefix="/collections/{collection_id}/metadata")


@router.get("")
def tables(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    page: PageNumber = 1,
    after: str = "",
) -> Response:
    """The tables of a collection, their columns, and the rows that are about no image."""
    return render_tables(
        request, session, person, collection_id, page=page, is_taken=after == "taken"
    )


@router.post("")
def add(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    table: Annotated[UploadFile | None, File()] = None,
    threshold: Annotated[str, Form()] = "",
) -> Response:
    """Keep what a table, or a detector, says of the images; the answer says what came of it."""
    collection = get_collection(session, admin, collection_id)
    was_told = is_told(collection)
    try:
        if table is None or not table.filename:
            raise BadInput("Choose a file first.")
        name = table.filename.replace("\\", "/").rsplit("/", 1)[-1].replace("\x00", "")
        with session.begin_nested():  # all of it or nothing
            summary = add_file(
                session,
                admin,
                collection_id,
                name=name[:MAX_NAME_LENGTH],
                data=table.file.read(),
                threshold=threshold,
            )
            if summary.taken is not None and (was_told or summary.taken.columns):
                group_anew(session, collection_id, indexes=request.app.state.indexes)
    except (BadInput, LabelsNotUsable) as error:
        return render_tables(request, session, admin, collection_id, wrong=str(error))
    return render_tables(request, session, admin, collection_id, added=summary)


def add_file(
    session: Session, admin: Person, collection_id: Id, *, name: str, data: bytes, threshold: str
) -> TableSummary:
    """Keep a CSV table, or what MegaDetector wrote; indexes follow what it hides and draws."""
    if not is_detections(name, data):
        return add_table(session, collection_id, name=name, data=data, person=admin)
    try:
        least = float(threshold.replace(",", ".")) if threshold.strip() else USUAL_THRESHOLD
    except ValueError as error:
        raise BadInput(f"“{threshold}” is no threshold: give a number such as 0.2.") from error
    summary = add_detections(
        session, collection_id, name=name, data=data, threshold=least, person=admin
    )
    add_job(session, "update", collection_id=collection_id, person=admin)
    return summary


@router.get("/removal")
def ask_before_removing(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    table: Annotated[int | None, Query(ge=1, le=LARGEST_ID)] = None,
    column: str = "",
) -> Response:
    """What removing a table, or taking a column away, will mean; nothing is changed yet."""
    collection = get_collection(session, admin, collection_id)
    if table is None and not column:
        return see_other(request.url.path.removesuffix("/removal"))
    if table is not None:
        asked = get_table(session, collection_id, table)
        removal = describe_table_removal(session, collection_id, asked, person=admin)
    else:
        asked = None
        of = get_column(session, collection_id, column)
        removal = describe_column_removal(session, collection_id, of, person=admin)
    return render(
        request,
        "metadata_removal.html",
        person=admin,
        collection=collection,
        table=asked,
        column=column,
        removal=removal,
    )


@router.post("/taken")
def take(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    time: Taking = None,
    clock: Taking = None,
    latitude: Taking = None,
    longitude: Taking = None,
    camera: Taking = None,
    deployment: Taking = None,
    order: Taking = None,
) -> Response:
    """Say which column is taken for what: `=NAME`, `none`, or nothing to have it found by itself.

    What the form does not speak of stays as it was chosen.
    """
    collection = get_collection(session, admin, collection_id)
    given = dict(zip(ROLES, (time, clock, latitude, longitude, camera, deployment), strict=True))
    before = read_choice(collection)
    chosen = {role: one for role, one in before.chosen.items() if given[role] is None}
    for role, one in given.items():
        if one:
            chosen[role] = None if one == NONE else one.removeprefix("=")
    try:
        with session.begin_nested():
            choose_columns(
                session,
                collection_id,
                chosen=chosen,
                order=before.order if order is None else order or None,
                person=admin,
            )
            group_anew(session, collection_id, indexes=request.app.state.indexes)
    except BadInput as error:
        return render_tables(
            request,
            session,
            admin,
            collection_id,
            wrong=str(error),
            given={**given, "order": order},
        )
    return see_other(f"/collections/{collection_id}/metadata?after=taken#taken")


@router.post("/remove")
def remove(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    table: Annotated[int, Form(ge=1, le=LARGEST_ID)],
) -> Response:
    """Remove a table; indexes follow where it had drawn boxes, events where it had told times."""
    collection = get_collection(session, admin, collection_id)
    was_told = is_told(collection)
    draws = remove_table(session, collection_id, table, person=admin)
    _follow(request, session, admin, collection, draws=draws, was_told=was_told)
    return see_other(f"/collections/{collection_id}/metadata")


@router.post("/forget")
def forget(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    column: Annotated[str, Form()] = "",
) -> Response:
    """Take a column away from every image."""
    collection = get_collection(session, admin, collection_id)
    was_told = is_told(collection)
    draws = forget_column(session, collection_id, column, person=admin)
    _follow(request, session, admin, collection, draws=draws, was_told=was_told)
    return see_other(f"/collections/{collection_id}/metadata")


@router.post("/places")
def mark_places(
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    column: Annotated[str, Form()] = "",
    holds_place: Annotated[str, Form()] = "",
) -> Response:
    """Say whether a column holds places."""
    get_collection(session, admin, collection_id)
    mark_column(session, collection_id, column, holds_place=holds_place == "yes", person=admin)
    return see_other(f"/collections/{collection_id}/metadata")


def render_tables(
    request: Request,
    session: Session,
    person: Person,
    collection_id: int,
    *,
    page: int = 1,
    wrong: str | None = None,
    added: TableSummary | None = None,
    given: Mapping[str, str | None] | None = None,
    is_taken: bool = False,
) -> Response:
    """The page, with what came of a table or what is wrong with it.

    `given` is what was chosen for columns, and could not be done.
    """
    metadata = describe_metadata(session, collection_id, page=page)
    choice = metadata.choice
    selected = {role: one or NONE for role, one in choice.chosen.items()}
    selected = {role: one if one == NONE else f"={one}" for role, one in selected.items()}
    return render(
        request,
        "metadata.html",
        status=422 if wrong else 200,
        person=person,
        collection=get_collection(session, person, collection_id),
        metadata=metadata,
        roles=ROLES,
        orders=ORDERS,
        role_of={column: role for role, column in choice.taken.columns.items()},
        selected=given or {**selected, "order": choice.order},
        is_taken=is_taken,
        not_taken=wrong if given is not None else None,
        sight=read_sight(session, person, collection_id),
        wrong=wrong if given is None else None,
        added=added,
        an_image=find_name(session, collection_id) if added and not added.images else None,
    )


def _follow(
    request: Request,
    session: Session,
    admin: Person,
    collection: Collection,
    *,
    draws: bool,
    was_told: bool,
) -> None:
    """Have indexes and events go by what is left, where boxes or times went."""
    if draws:
        add_job(session, "update", collection_id=collection.id, person=admin)
    elif was_told or is_told(collection):
        group_anew(session, collection.id, indexes=request.app.state.indexes)
