"""Whether the server lives and is ready, and what it measures: for supervisors and Prometheus."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel

from app.api.models import Problem
from app.database import DbSession
from app.errors import NotAllowed
from app.security import SignedIn
from app.watching import Metrics, Readiness

router = APIRouter(
    prefix="/api/v1",
    responses={503: {"model": Problem, "description": "The database does not answer."}},
)
metrics_router = APIRouter()


class Health(BaseModel):
    """The server answers."""

    status: str


class ReadyPart(BaseModel):
    """One thing the server needs: `ok`, or what is wrong with it."""

    name: str
    state: str


class Ready(BaseModel):
    """Whether all that a request may need is there."""

    status: str  # ready, or not ready
    missing: list[str]  # names of parts
    parts: list[ReadyPart]


@router.get("/health")
def get_health() -> Health:
    """200 as long as the server lives, whatever else is down: else it need be started again."""
    return Health(status="ok")


@router.get("/ready", responses={503: {"model": Ready, "description": "Not ready"}})
def get_ready(request: Request, response: Response) -> Ready:
    """200 when database, data folder and indexes are there; else 503, and which are not."""
    readiness: Readiness = request.app.state.readiness
    parts = readiness.check()
    missing = [part.name for part in parts if part.problem is not None]
    if missing:
        response.status_code = 503
    return Ready(
        status="not ready" if missing else "ready",
        missing=missing,
        parts=[ReadyPart(name=part.name, state=part.problem or "ok") for part in parts],
    )


@metrics_router.get("/metrics")
def get_metrics(request: Request, session: DbSession, person: SignedIn) -> Response:
    """What is measured, for Prometheus with the token of an admin."""
    if person.role != "admin":
        raise NotAllowed("Only an admin, or a token of theirs, can read what is measured.")
    metrics: Metrics = request.app.state.metrics
    state = request.app.state
    return Response(
        metrics.write(session, state.database, state.indexes), media_type=CONTENT_TYPE_PLAIN_0_0_4
    )
