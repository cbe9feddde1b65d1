"""Collections: adding one, how its preparation stands, what is known of it, what was refused."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, Response, UploadFile
from sqlalchemy.orm import Session

from app.access import get_collection, list_people_of, may_open
from app.audit import note
from app.collecting import (
    count_refused,
    describe_collection,
    describe_preparation,
    list_refused,
)
from app.database import DbSession
from app.deploying import (
    MOST_FOLDERS,
    count_deployments,
    find_far,
    list_deployments,
    list_folders,
    may_see_folders,
)
from app.embedders import list_embedders
from app.errors import BadInput, LabelsNotUsable, NameTaken, SourceNotUsable
from app.events import find_grouping
from app.importing import add_collection
from app.indexing import DEFAULT_EMBEDDER, check_embedder
from app.jobs import add_job, find_failed_upload, list_preparing, stop_preparing
from app.labelling import count_known
from app.metadata import list_columns
from app.pages.addresses import Id, PageNumber, see_other
from app.pages.indexes import describe_indexes
from app.pages.labelling import take_labels
from app.pages.rendering import render, wants_fragment
from app.reporting import list_searches
from app.searchers import FAISS, check_listed, list_places
from app.security import Admin, SignedIn, may_see_labels
from app.sensitive import read_sight
from app.settings import Settings
from app.sources import check_source
from app.tables import Person
from app.uploads import list_open_uploads, start_upload

Text = Annotated[str, Form()]
MAX_NAME_LENGTH = 120
MOST_LOOKED_THROUGH = 200_000  # images, for what a page only hints at: more take a second
NEW = {
    "name": "",
    "where": "here",
    "source": "",
    "keep_copy": "",
    "labels": "none",
    "labels_file": "",
    "embedder": DEFAULT_EMBEDDER,
    "other_embedder": "",
    "vectors": FAISS,
    "upload_labels": "",
}

router = APIRouter(prefix="/collections")


@router.get("/new")
def new_collection(request: Request, session: DbSession, admin: Admin) -> Response:
    """The form that adds a collection."""
    return render_new(request, session, admin, form=NEW, wrong={})


@router.post("")
def add(
    request: Request,
    session: DbSession,
    admin: Admin,
    name: Text = "",
    where: Text = "server",
    source: Text = "",
    keep_copy: Text = "",
    labels: Text = "none",
    labels_file: Text = "",
    embedder: Text = DEFAULT_EMBEDDER,
    other_embedder: Text = "",
    vectors: Text = FAISS,
    upload_labels: Text = "",
    labels_upload: Annotated[UploadFile | None, File()] = None,
) -> Response:
    """Add a collection and begin to prepare it, or show what is wrong with the form."""
    form = {
        "name": name,
        "where": where,
        "source": source,
        "keep_copy": keep_copy,
        "labels": labels,
        "labels_file": labels_file,
        "embedder": embedder,
        "other_embedder": other_embedder,
        "vectors": vectors,
        "upload_labels": upload_labels,
    }
    settings = request.app.state.settings
    is_upload = where == "here"
    wrong = {} if is_upload else find_wrong_sources(form, settings)
    chosen = other_embedder.strip() if embedder == "other" else embedder
    try:
        if not chosen:
            raise BadInput("Type the place of the model, or choose one of those above.")
        check_embedder(chosen)
    except BadInput as error:
        wrong["other_embedder"] = str(error)
    if len(name) > MAX_NAME_LENGTH:
        wrong["name"] = f"The name is longer than {MAX_NAME_LENGTH} characters."
    try:
        vectors = check_listed(session, vectors, settings)
    except BadInput as error:
        wrong["vectors"] = str(error)
    given: tuple[str | None, bytes | None] = (None, None)
    try:
        given = take_labels(upload_labels, labels_upload) if is_upload else given
    except LabelsNotUsable as error:
        wrong["labels_upload"] = str(error)
    if not wrong:
        try:
            collection = add_collection(
                session, name, source=None if is_upload else read_path(source), person=admin
            )
        except (NameTaken, BadInput) as error:
            wrong["name"] = str(error)
        else:
            collection.vectors = vectors
            if is_upload:
                upload = start_upload(
                    session,
                    collection,
                    admin,
                    settings=settings,
                    labels=given[0],
                    labels_file=given[1],
                    embedder=chosen,
                )
                what = f"Added “{collection.name}” by an upload"
                note(session, admin, "import", what, collection=collection)
                return see_other(f"/uploads/{upload.id}")
            what = f"Added “{collection.name}” from {collection.source}"
            note(session, admin, "import", what, collection=collection)
            return begin_preparing(session, admin, collection.id, form, embedder=chosen)
    return render_new(request, session, admin, form=form, wrong=wrong)


@router.get("/{collection_id}")
def collection_page(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id
) -> Response:
    """What is known of a collection, and what to do with it."""
    return render_collection(request, session, person, collection_id)


@router.get("/{collection_id}/progress")
def progress(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id, stage: str = ""
) -> Response:
    """How the preparation stands; past `stage`, the whole page is loaded again."""
    collection = get_collection(session, person, collection_id)
    if not wants_fragment(request):
        return see_other(f"/collections/{collection_id}")
    preparation = describe_preparation(session, collection, now=datetime.now(UTC))
    return render(
        request,
        "_progress.html",
        headers=None if preparation.stage == stage else {"HX-Refresh": "true"},
        person=person,
        collection=collection,
        preparation=preparation,
        jobs=list_preparing(session, collection_id),
        failed_upload=find_failed_upload(session, collection_id),
    )


@router.post("/{collection_id}/imports")
def add_images(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    source: Text = "",
    keep_copy: Text = "",
    labels: Text = "none",
    labels_file: Text = "",
) -> Response:
    """Import what is new in a folder or zip, or go on with an import that stopped."""
    collection = get_collection(session, admin, collection_id)
    form = {"source": source, "keep_copy": keep_copy, "labels": labels, "labels_file": labels_file}
    wrong = find_wrong_sources(form, request.app.state.settings)
    if not wrong:
        what = f"Began to add images to “{collection.name}” from {source.strip()}"
        note(session, admin, "import", what, collection=collection)
        return begin_preparing(session, admin, collection_id, form)
    return render_collection(request, session, admin, collection_id, form=form, wrong=wrong)


@router.post("/{collection_id}/stop")
def stop(session: DbSession, admin: Admin, collection_id: Id) -> Response:
    """Stop preparing; what is done is kept, and can be gone on with."""
    get_collection(session, admin, collection_id)
    stop_preparing(session, collection_id)
    return see_other(f"/collections/{collection_id}")


@router.get("/{collection_id}/refused")
def refused_files(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    reason: str = "",
    page: PageNumber = 1,
) -> Response:
    """Files that did not become images, with the reason of each."""
    return render(
        request,
        "collection_refused.html",
        person=person,
        collection=get_collection(session, person, collection_id),
        reasons=count_refused(session, collection_id),
        refused=list_refused(session, collection_id, reason=reason, page=page),
        with_folders=may_see_folders(session, person, collection_id),
        reason=reason,
    )


def render_new(
    request: Request,
    session: DbSession,
    admin: Admin,
    *,
    form: dict[str, Any],
    wrong: dict[str, str],
) -> Response:
    """The form that adds a collection, as it was filled in."""
    return render(
        request,
        "collection_new.html",
        status=422 if wrong else 200,
        person=admin,
        form=form,
        wrong=wrong,
        embedders=list_embedders(session, request.app.state.settings),
        places=list_places(session),
    )


def render_collection(
    request: Request,
    session: DbSession,
    person: SignedIn,
    collection_id: int,
    *,
    form: dict[str, Any] | None = None,
    wrong: dict[str, str] | None = None,
) -> Response:
    """The collection's page; with `wrong`, its form for more images as it was filled in."""
    facts = describe_collection(session, collection_id)
    deployment_count = count_deployments(session, collection_id)
    deployments, folders = [], []
    if facts.image_count <= MOST_LOOKED_THROUGH:
        with_folders = may_see_folders(session, person, collection_id)
        deployments = list_deployments(session, collection_id, with_folders=with_folders)
        if not deployment_count and with_folders:
            folders = list_folders(session, collection_id)
    return render(
        request,
        "collection.html",
        status=422 if wrong else 200,
        person=person,
        collection=facts.collection,
        facts=facts,
        preparation=describe_preparation(session, facts.collection, now=datetime.now(UTC)),
        jobs=list_preparing(session, collection_id),
        uploads=list_open_uploads(session, person, collection_id),
        failed_upload=find_failed_upload(session, collection_id),
        searches=list_searches(session, person, collection_id=collection_id),
        others=list_searches(session, person, collection_id=collection_id, of_others=True),
        may_open=may_open(person, facts.collection),
        sight=read_sight(session, person, collection_id),
        listed=[one.name for one in list_people_of(session, facts.collection)],
        columns=list_columns(session, collection_id),
        deployment_count=deployment_count,
        far_count=len(find_far(deployments)),
        folder_count=len(folders),
        are_more_folders=len(folders) == MOST_FOLDERS,
        grouping=find_grouping(session, collection_id),
        known_count=count_known(session, collection_id) if may_see_labels(person) else None,
        **describe_indexes(session, facts.collection, request.app.state.settings),
        form=NEW | {"source": facts.collection.source} | (form or {}),
        wrong=wrong or {},
    )


def find_wrong_sources(form: dict[str, Any], settings: Settings) -> dict[str, str]:
    """What is wrong with the source and the labels, by field."""
    if not form["source"].strip():
        return {"source": "Type the path of a folder or of a zip file."}
    try:
        labels = read_labels_choice(form)
        check_source(read_path(form["source"]), settings, labels)
    except LabelsNotUsable as error:
        return {"labels_file": str(error)}
    except SourceNotUsable as error:
        return {"source": str(error)}
    return {}


def read_labels_choice(form: dict[str, Any]) -> str | None:
    """None, "folders" or the path of a CSV file."""
    if form["labels"] != "file":
        return "folders" if form["labels"] == "folders" else None
    if not form["labels_file"].strip():
        raise LabelsNotUsable("Type the path of the CSV file, or choose another kind of labels.")
    return str(read_path(form["labels_file"]))


def read_path(typed: str) -> Path:
    """A path as people type it, ~ and blanks at the ends included."""
    return Path(typed.strip()).expanduser()


def begin_preparing(
    session: Session,
    person: Person,
    collection_id: int,
    form: dict[str, Any],
    *,
    embedder: str | None = None,
) -> Response:
    """Put the work in line, in this request's transaction."""
    add_job(
        session,
        "import",
        collection_id=collection_id,
        person=person,
        source=str(read_path(form["source"]).absolute()),
        labels=read_labels_choice(form),
        copy=bool(form["keep_copy"]),
        embedder=embedder,
    )
    return see_other(f"/collections/{collection_id}")
