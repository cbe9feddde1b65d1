"""The admins' overview of the whole server; folder sizes load after."""

import csv
import io
from datetime import UTC, datetime, timedelta

from fastapi import APIRouter, Request, Response

from app.database import DbSession
from app.overview import (
    count_unseen_searches,
    list_collection_lines,
    list_people,
    list_recent_searches,
    measure_speed,
)
from app.pages.addresses import see_other
from app.pages.rendering import render, wants_fragment
from app.security import Admin
from app.work import list_commands, list_work

router = APIRouter(prefix="/overview")


@router.get("")
def overview_page(
    request: Request, session: DbSession, person: Admin, whole: bool = False
) -> Response:
    """Everything that the database knows; the disk loads after, or comes at once."""
    now = datetime.now(UTC)
    speed = measure_speed(session, now=now)
    return render(
        request,
        "overview.html",
        person=person,
        collections=list_collection_lines(session),
        searches=list_recent_searches(session, person),
        unseen_count=count_unseen_searches(session, person),
        people=list_people(session),
        work=list_work(session, person, now=now),
        commands=list_commands(session, person, now=now),
        speed=speed,
        hour_rows=[[at.isoformat(), count] for at, count in speed.hours],
        disk=request.app.state.folder_sizes.get() if whole else None,
    )


@router.get("/disk")
def disk_part(request: Request, session: DbSession, person: Admin) -> Response:
    """What the data folder takes."""
    if not wants_fragment(request):
        return see_other("/overview?whole=1#disk")
    return render(
        request,
        "_overview_disk.html",
        person=person,
        collections=list_collection_lines(session),
        disk=request.app.state.folder_sizes.get(),
    )


@router.get("/rounds.csv")
def download_rounds(session: DbSession, person: Admin) -> Response:  # noqa: ARG001
    """Rounds in each hour of the last days, hours without one included."""
    speed = measure_speed(session, now=datetime.now(UTC))
    counts = dict(speed.hours)
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["hour_utc", "rounds"])
    hour = speed.since
    while hour <= speed.until:
        writer.writerow([f"{hour:%Y-%m-%dT%H:%MZ}", counts.get(hour, 0)])
        hour += timedelta(hours=1)
    return Response(
        lines.getvalue(),
        media_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": 'attachment; filename="rarefind-rounds.csv"'},
    )
