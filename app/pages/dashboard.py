"""The dashboard of a search, its parts, tables and report; goals and detours are set here."""

import csv
import io
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from sqlalchemy.orm import Session

from app.access import get_search
from app.dashboards.found import tell_found
from app.dashboards.moments import Moment, Plot, open_moment
from app.dashboards.report import describe_report
from app.dashboards.stopping import choose_goal, list_rules, tell_left, tell_stopping
from app.dashboards.trust import tell_head
from app.dashboards.variety import tell_history, tell_looks, tell_variety
from app.dashboards.whereabouts import Whereabouts, tell_whereabouts
from app.database import PROJECT, DbSession
from app.errors import BadInput, NotFound, RefusedGoal
from app.exports.rows import defuse
from app.pages.addresses import Id, see_other
from app.pages.rendering import render, wants_fragment
from app.pages.searches import GESTURE_KEY, new_gesture_key
from app.searching import take_detour
from app.security import SignedIn
from app.sensitive import read_sight
from app.tables import Person, Search


def find_plot(told: Whereabouts, name: str) -> Plot | None:
    """The plot of that name, if there is one."""
    return next((one for one in told.plots if one.name == name), None)


# Each part with what it asks; the page brings the first, the others load after it.
PARTS: dict[str, tuple[str, Callable[[Moment], Any]]] = {
    "variety": ("How varied is it?", tell_variety),
    "history": ("", tell_history),  # stands inside the one before
    "looks": ("Where are the gaps?", tell_looks),
    "whereabouts": ("When and where was it found?", tell_whereabouts),
    "left": ("How many are left?", tell_left),
    "stopping": ("May I stop?", tell_stopping),
    "head": ("What does the search believe?", tell_head),
}
TABLES: dict[str, Callable[[Moment], Plot | None]] = {
    "yield": lambda moment: tell_found(moment).plot,
    "coverage": tell_history,
    "map": lambda moment: tell_looks(moment).map,
    "dates": lambda moment: find_plot(tell_whereabouts(moment), "dates"),
    "hours": lambda moment: find_plot(tell_whereabouts(moment), "hours"),
    "places": lambda moment: find_plot(tell_whereabouts(moment), "places"),
    "deployments": lambda moment: find_plot(tell_whereabouts(moment), "deployments"),
    "scores": lambda moment: tell_head(moment).plot,
    "calibration": lambda moment: tell_head(moment).calibration,
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
    moment = open_seen(request, session, search, person, round)
    told = {name: tell(moment) for name, (_, tell) in PARTS.items()} if whole else {}
    return render_dashboard(request, person, moment, told=told)


def open_seen(
    request: Request, session: Session, search: Search, person: Person, after: int | None
) -> Moment:
    """The moment, as far as a person may see it."""
    sight = read_sight(session, person, search.collection_id)
    return open_moment(session, search, request.app.state.indexes, after, sight=sight)


def render_dashboard(
    request: Request,
    person: Person,
    moment: Moment,
    *,
    told: dict[str, Any],
    refused: dict[str, str] | None = None,
) -> Response:
    """The page, with what is told of it already; with a goal that was refused, as it was typed."""
    return render(
        request,
        "dashboard.html",
        status=422 if refused else 200,
        person=person,
        search=moment.search,
        moment=moment,
        found=tell_found(moment),
        parts={name: title for name, (title, _) in PARTS.items() if title},
        told=told,
        refused=refused or {},
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
    moment = open_seen(request, session, search, person, round)
    return render(
        request,
        f"_dashboard_{part}.html",
        person=person,
        search=search,
        moment=moment,
        refused={},
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
    moment = open_seen(request, session, search, person, round)
    plot = TABLES[name](moment) if name in TABLES else None
    if plot is None:
        raise NotFound("There is no such table yet.")
    lines = io.StringIO()
    writer = csv.writer(lines)
    writer.writerow(plot.columns)
    writer.writerows([defuse(cell) for cell in row] for row in plot.rows)
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
    moment = open_seen(request, session, search, person, round)
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
    embedder: Annotated[str, Form()] = "",
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
        embedder=embedder or None,
        gesture_key=gesture_key or None,
        indexes=request.app.state.indexes,
    )
    return see_other(f"/searches/{search.id}")


@router.post("/goal")
def set_goal(
    request: Request,
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
        share = 1 if aim == "positives" else 100
        choose_goal(
            session,
            search,
            person=person,
            aim=aim,
            amount=read_number("amount", amount) / share,
            confidence=read_number("confidence", confidence) / 100,
            rule=rule,
        )
    except RefusedGoal as error:
        refused = {
            "aim": aim,
            "amount": amount,
            "confidence": confidence,
            "rule": rule,
            "field": error.field,
            "sentence": str(error),
        }
        moment = open_seen(request, session, search, person, None)
        told = {"stopping": tell_stopping(moment)}
        return render_dashboard(request, person, moment, told=told, refused=refused)
    return see_other(f"/searches/{search.id}/dashboard#stopping")


def read_number(field: str, text: str) -> float:
    """A number of the form of a goal."""
    try:
        return float(text)
    except ValueError as error:
        raise RefusedGoal(field, "This needs a number.") from error


def read_whole(text: str) -> int:
    """A whole number of a form."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise BadInput("The number of images must be a whole number.")
    return int(text)


def as_file(name: str) -> dict[str, str]:
    """Headers of an answer that is kept as a file."""
    return {"Content-Disposition": f'attachment; filename="{name}"'}
