"""The dashboard of a search, its parts, tables and report; goals and detours are set here."""

import csv
import io
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response

from app.access import get_search
from app.dashboards import (
    Moment,
    Plot,
    choose_goal,
    describe_report,
    list_rules,
    open_moment,
    tell_found,
    tell_head,
    tell_history,
    tell_left,
    tell_looks,
    tell_stopping,
    tell_variety,
)
from app.database import PROJECT, DbSession
from app.errors import BadInput, NotFound
from app.pages.addresses import Id, see_other
from app.pages.rendering import render, wants_fragment
from app.pages.searches import GESTURE_KEY, new_gesture_key
from app.searching import take_detour
from app.security import SignedIn

# Each part with what it asks; the page brings the first, the others load after it.
PARTS: dict[str, tuple[str, Callable[[Moment], Any]]] = {
    "variety": ("How varied is it?", tell_variety),
    "history": ("", tell_history),  # stands inside the one before
    "looks": ("Where are the gaps?", tell_looks),
    "left": ("How many are left?", tell_left),
    "stopping": ("May I stop?", tell_stopping),
    "head": ("What does the search believe?", tell_head),
}
TABLES: dict[str, Callable[[Moment], Plot | None]] = {
    "yield": lambda moment: tell_found(moment).plot,
    "coverage": tell_history,
    "map": lambda moment: tell_looks(moment).map,
    "scores": lambda moment: tell_head(moment).plot,
}

RoundNumber = Annotated[int | None, Query(ge=0, le=1_000_000)]
router = APIRouter(prefix="/searches/{search_id}")


@router.get("/dashboard")
def show_dashboard(
    request: Request,
    search_id: Id,
    session: DbSession,
    person: SignedIn,
    round: RoundNumber = None,  # the word of the address
    whole: bool = False,
) -> Response:
    """What was found; the other parts load after, or come at once where scripts are off."""
    search = get_search(session, person, search_id)
    moment = open_moment(session, search, request.app.state.indexes, round)
    return render(
        request,
        "dashboard.html",
        person=person,
        search=search,
        moment=moment,
        found=tell_found(moment),
        parts={name: title for name, (title, _) in PARTS.items() if title},
        told={name: tell(moment) for name, (_, tell) in PARTS.items()} if whole else {},
        whole=whole,
        rules=list_rules(),
        gesture_key=new_gesture_key,
    )


@router.get("/dashboard/{part}")
def show_part(
    request: Request,
    search_id: Id,
    part: str,
    session: DbSession,
    person: SignedIn,
    round: RoundNumber = None,
) -> Response:
    """One part of the dashboard."""
    if part not in PARTS:
        raise NotFound("The dashboard has no such part.")
    search = get_search(session, person, search_id)
    if not wants_fragment(request):
        suffix = "" if round is None else f"&round={round}"
        return see_other(f"/searches/{search.id}/dashboard?whole=1{suffix}#{part}")
    moment = open_moment(session, search, request.app.state.indexes, round)
    return render(
        request,
        f"_dashboard_{part}.html",
        person=person,
        search=search,
        moment=moment,
        whole=False,
        told={part: PARTS[part][1](moment)},
        rules=list_rules(),
        gesture_key=new_gesture_key,
    )


@router.get("/dashboard/tables/{name}.csv")
def download_table(
    request: Request,
    search_id: Id,
    name: str,
    session: DbSession,
    person: SignedIn,
    round: RoundNumber = None,
) -> Response:
    """The numbers of a plot."""
    search = get_search(session, person, search_id)
    moment = open_moment(session, search, request.app.state.indexes, round)
    plot = TABLES[name](moment) if name in TABLES else None
    if plot is None:
        raise NotFound("There is no such table yet.")
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(plot.columns)
    writer.writerows(plot.rows)
    return Response(
        lines.getvalue(),
        media_type="text/csv; charset=utf-8",
        headers=as_file(f"rarefind-{search.id}-{name}.csv"),
    )


@router.get("/report")
def show_report(
    request: Request,
    search_id: Id,
    session: DbSession,
    person: SignedIn,
    round: RoundNumber = None,
    download: bool = False,
) -> Response:
    """What a methods section needs, to print or to keep as one file."""
    search = get_search(session, person, search_id)
    moment = open_moment(session, search, request.app.state.indexes, round)
    return render(
        request,
        "dashboard_report.html",
        headers=as_file(f"rarefind-{search.id}-report.html") if download else None,
        person=person,
        search=search,
        moment=moment,
        report=describe_report(moment),
        style=(PROJECT / "static" / "report.css").read_text() if download else None,
    )


@router.post("/detour")
def set_detour(
    request: Request,
    search_id: Id,
    session: DbSession,
    person: SignedIn,
    kind: Annotated[str, Form()] = "",
    size: Annotated[str, Form()] = "",
    anchor_image_id: Annotated[str, Form()] = "",
    gesture_key: Annotated[str, Form()] = "",
) -> Response:
    """Make a gap, a sample or a second look the next rounds; without a kind, end it."""
    search = get_search(session, person, search_id)
    if gesture_key and not GESTURE_KEY.fullmatch(gesture_key):
        raise BadInput("The request could not be read. Reload the page.")
    take_detour(
        session,
        search,
        person=person,
        kind=kind or None,
        size=search.round_size if kind == "gap" else read_whole(size) if kind else 0,
        anchor_image_id=read_whole(anchor_image_id) if kind == "gap" else None,
        gesture_key=gesture_key or None,
        indexes=request.app.state.indexes,
    )
    return see_other(f"/searches/{search.id}")


@router.post("/goal")
def set_goal(
    search_id: Id,
    session: DbSession,
    person: SignedIn,
    aim: Annotated[str, Form()] = "",
    amount: Annotated[str, Form()] = "",
    confidence: Annotated[str, Form()] = "95",
    rule: Annotated[str, Form()] = "",
) -> Response:
    """Set the goal and the rule it goes by; shares come in percent."""
    search = get_search(session, person, search_id)
    try:
        number, sure = float(amount), float(confidence)
    except ValueError as error:
        raise BadInput("The goal needs a number.") from error
    choose_goal(
        session,
        search,
        person=person,
        aim=aim,
        amount=number if aim == "positives" else number / 100,
        confidence=sure / 100,
        rule=rule,
    )
    return see_other(f"/searches/{search.id}/dashboard#stopping")


def read_whole(text: str) -> int:
    """A whole number of a form."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise BadInput("The number of images must be a whole number.")
    return int(text)


def as_file(name: str) -> dict[str, str]:
    """Headers of an answer that is kept as a file."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}
