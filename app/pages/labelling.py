"""Known labels of a collection: what there is, what a file would change, keeping it, a download."""

from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from sqlalchemy.orm import Session

from app.access import get_collection
from app.audit import note
from app.database import DbSession
from app.errors import BadInput, LabelsNotUsable
from app.labelling import (
    FOLDERS,
    LabelsPlan,
    check_labels,
    clean_name,
    describe_labels,
    find_remarks,
    keep_labels,
    plan_labels,
    write_labels,
    write_without,
)
from app.pages.addresses import Id
from app.pages.rendering import render, wants_fragment
from app.security import Admin, Evaluator
from app.tables import Collection, Person

router = APIRouter(prefix="/collections/{collection_id}/labels")


@router.get("")
def labels_page(
    request: Request, session: DbSession, person: Evaluator, collection_id: Id
) -> Response:
    """What is known of the images, for those who may see it."""
    collection = get_collection(session, person, collection_id)
    return render_labels(request, session, person, collection)


@router.post("")
def give_labels(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    labels: Annotated[UploadFile | None, File()] = None,
    checked: Annotated[str, Form()] = "",
) -> Response:
    """Say what a labels file would change; keep it once just that was said of the same file."""
    collection = get_collection(session, admin, collection_id)
    kept = False
    try:
        if labels is None or not labels.filename:
            raise BadInput("Choose a file first.")
        name = clean_name(labels.filename)
        plan = plan_labels(session, collection, name=name, data=labels.file.read())
        if checked == plan.checksum:
            keep_labels(session, collection, plan, person=admin, leave_out=True)
            kept = True
    except BadInput as error:
        return render_labels(request, session, admin, collection, wrong=str(error))
    return render_labels(request, session, admin, collection, plan=plan, kept=kept)


@router.get("/{name}")
def download_labels(
    session: DbSession,
    person: Evaluator,
    collection_id: Id,
    name: Literal["known.csv", "without.csv"],
) -> Response:
    """The known labels as a file that can be given back, or the images without any."""
    collection = get_collection(session, person, collection_id)
    write = write_labels if name == "known.csv" else write_without
    what = "known labels" if name == "known.csv" else "images without a known label"
    note(
        session,
        person,
        "export",
        f"Exported the {what} of “{collection.name}”",
        collection=collection,
    )
    file = f"{collection.name}, {what}.csv".replace("/", "_")
    return Response(
        "".join(write(session, collection_id)),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": f'attachment; filename="labels-{collection_id}-{name}"; '
            f"filename*=UTF-8''{quote(file)}"
        },
    )


def take_labels(choice: str, file: UploadFile | None) -> tuple[str | None, bytes | None]:
    """What an upload is told of its labels, a file checked: refused before a photo is sent."""
    if choice == FOLDERS:
        return FOLDERS, None
    if choice != "file":  # a file picked before “None” is sent all the same
        return None, None
    if file is None or not file.filename:
        raise LabelsNotUsable("Choose the file, or another kind of labels.")
    name, data = clean_name(file.filename), file.file.read()
    check_labels(name, data)
    return name, data


def render_labels(
    request: Request,
    session: Session,
    person: Person,
    collection: Collection,
    *,
    plan: LabelsPlan | None = None,
    kept: bool = False,
    wrong: str | None = None,
) -> Response:
    """The page, or of it what changes, with what came of a file or what is wrong with it."""
    is_part = wants_fragment(request)
    return render(
        request,
        "_labels_outcome.html" if is_part else "labels.html",
        status=422 if wrong and not is_part else 200,  # a part is shown beside the form
        person=person,
        collection=collection,
        known=describe_labels(session, collection.id),
        remarks=find_remarks(session, collection.id),
        plan=plan,
        kept=kept,
        wrong=wrong,
        is_part=is_part,
    )
