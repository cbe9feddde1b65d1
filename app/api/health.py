"""Whether the server and its database answer: for process supervisors and containers."""

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text

from app.api.models import Problem
from app.database import DbSession

router = APIRouter(
    prefix="/api/v1",
    responses={503: {"model": Problem, "description": "The database does not answer."}},
)


class Health(BaseModel):
    """The server answers, and so does its database."""

    status: str


@router.get("/health")
def get_health(session: DbSession) -> Health:
    """200 when PostgreSQL answers; an error otherwise."""
    session.execute(text("SELECT 1"))
    return Health(status="ok")
