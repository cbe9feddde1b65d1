"""Deployments of a collection: where and when cameras stood, and how wrong their clocks were."""

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from sqlalchemy.orm import Session

from app.access import get_collection
from app.database import DbSession
from app.deploying import (
    change_deployment,
    find_far,
    list_deployments,
    list_folders,
    may_folders_be_labels,
    may_see_folders,
    take_folders,
)
from app.errors import BadInput
from app.pages.addresses import Id, see_other
from app.pages.rendering import render
from app.security import Admin, SignedIn
from app.sensitive import read_sight
from app.tables import Person

Text = Annotated[str, Form()]

router = APIRouter(prefix="/collections/{collection_id}/deployments")


@router.get("")
def deployments(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id
) -> Response:
    """Every deployment, and the folders that could be one."""
    return render_deployments(request, session, person, collection_id)


@router.post("/folders")
def add_from_folders(session: DbSession, admin: Admin, collection_id: Id) -> Response:
    """Make a deployment of each first folder."""
    get_collection(session, admin, collection_id)
    take_folders(session, collection_id, person=admin)
    return see_other(f"/collections/{collection_id}/deployments")


@router.post("/{deployment_id}")
def change(
    request: Request,
    session: DbSession,
    admin: Admin,
    collection_id: Id,
    deployment_id: Id,
    place: Text = "",
    latitude: Text = "",
    longitude: Text = "",
    clock_shift: Text = "",
    first_taken_at: Text = "",
) -> Response:
    """Change a deployment; its images follow."""
    get_collection(session, admin, collection_id)
    try:
        with session.begin_nested():
            change_deployment(
                session,
                collection_id,
                deployment_id,
                place=place,
                latitude=latitude,
                longitude=longitude,
                clock_shift=clock_shift,
                first_taken_at=first_taken_at,
                person=admin,
            )
    except BadInput as error:
        typed = {
            "place": place,
            "latitude": latitude,
            "longitude": longitude,
            "clock_shift": clock_shift,
            "first_taken_at": first_taken_at,
        }
        return render_deployments(
            request,
            session,
            admin,
            collection_id,
            wrong=str(error),
            wrong_id=deployment_id,
            typed=typed,
        )
    return see_other(f"/collections/{collection_id}/deployments#deployment-{deployment_id}")


def render_deployments(
    request: Request,
    session: Session,
    person: Person,
    collection_id: int,
    *,
    wrong: str | None = None,
    wrong_id: int | None = None,
    typed: dict[str, str] | None = None,
) -> Response:
    """The page, with what is wrong, and what was typed there still in its fields."""
    with_folders = may_see_folders(session, person, collection_id)
    deployments = list_deployments(session, collection_id, with_folders=with_folders)
    return render(
        request,
        "deployments.html",
        status=422 if wrong else 200,
        person=person,
        collection=get_collection(session, person, collection_id),
        deployments=deployments,
        far_ids=find_far(deployments),
        folders=list_folders(session, collection_id) if with_folders else [],
        are_folders_labels=may_folders_be_labels(session, collection_id),
        sight=read_sight(session, person, collection_id),
        wrong=wrong,
        wrong_id=wrong_id,
        typed=typed,
    )
