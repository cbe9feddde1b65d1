"""The screens of a search: the grid, the large view, results, history, settings, exports."""

import json
import math
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from sqlalchemy.orm import Session

from app.access import (
    NamedSearch,
    QuickRoute,
    get_own_search,
    get_search,
    in_one_thread,
    may_answer,
)
from app.adjusting import (
    ROUND_SIZES,
    change_search,
    list_strategies,
    move_search,
    read_search_filter,
)
from app.answers import Values, read_current_answers
from app.audit import note
from app.browsing import list_beside
from app.cards import change_card, find_on_card, list_reasons, put_on_card, read_card
from app.database import DbSession
from app.deploying import may_folders_be_labels
from app.errors import BadInput, NotFound
from app.events import find_grouping_id
from app.exports.rows import Format, write_export
from app.finds import list_found_as
from app.history import list_history
from app.indexes import list_indexes
from app.pages.addresses import Count, Id, OptionalId, PageNumber, see_other
from app.pages.filters import describe_filter
from app.pages.remarks import describe_remarks
from app.pages.rendering import render, wants_fragment
from app.remarks import MAX_TAG_LENGTH, list_image_tags
from app.reporting import (
    Grid,
    count_found_events,
    current_grid,
    explain_image,
    get_current_round,
    list_answered,
    list_examples,
    upcoming_images,
)
from app.results import describe_event, list_results
from app.searching import correct_answers, record_answers, sit_down, stay_here, submit_answers
from app.seats import leave, name_here
from app.security import SignedIn
from app.sensitive import list_hidden_with, read_sight
from app.steps import redo, undo
from app.tables import Person, Search

MOST_COLUMNS = 6
GESTURE_KEY = re.compile(r"[\w-]{1,64}")

# What a page says after a form without scripts was sent; named in the address it leads back to.
NOTICES = {
    "already": "That grid had been submitted already. What you answered there was kept as a "
    "correction; this is the current grid.",
    "undo": "Took back the last step.",
    "redo": "Did the step again.",
    "changed": "Changed. The next images will know.",
    "tagged": "Tagged.",
    "imported": "Imported, with every round and answer. The newest rounds were proposed again, and "
    "the same images came.",
    "imported-unlike": "Imported, with every round and answer. But proposed again here, some "
    "rounds come out with other images: another kind of processor made the vectors, or another "
    "version of Rarefind chose. What was shown and answered stays as it was.",
}

router = APIRouter(prefix="/searches/{search_id}")


@dataclass(frozen=True)
class Posted:
    """What a form or a script sends about answers."""

    values: Values
    alone: frozenset[int]  # images whose answer is not for their event
    gesture_key: str | None
    fields: Mapping[str, Any]
    is_json: bool

    @property
    def round_id(self) -> int:
        """The round that the page showed."""
        return read_id(self.fields.get("round_id"))


async def read_posted(request: Request) -> Posted:
    """Read answers from JSON ({"values": {image: answer}}) or from a form's fields.

    A form names its answers `answer-<image>` and what they were when it was drawn `was-<image>`:
    only those that differ count, so that an old tab never overwrites newer answers. What is for one
    image of an event alone is named in `alone`, or ticked as `alone-<image>`.
    """
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            fields = json.loads(await request.body())
            given = fields["values"].items()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BadInput("The answers could not be read. Reload the page.") from error
        values = {read_id(name): value for name, value in given}
        alone = fields.get("alone", [])
        if not isinstance(alone, list):
            raise BadInput("The answers could not be read. Reload the page.")
        is_json = True
    else:
        form = await request.form()
        fields = {name: value for name, value in form.items() if isinstance(value, str)}
        values = {
            read_id(name[7:]): value or None
            for name, given in fields.items()
            if name.startswith("answer-")
            for value in (given + why(fields, given, name[7:]),)
            if value != fields.get(f"was-{name[7:]}")
            or (bool(given) and f"alone-{name[7:]}" in fields)
            != (f"was-alone-{name[7:]}" in fields)
        }
        alone = [name[6:] for name in fields if name.startswith("alone-")]
        if "change" in fields:  # one button of a gallery: "<image>:<answer>"
            image, _, value = fields["change"].partition(":")
            values[read_id(image)] = value or None
        elif "set" in fields:  # a button for all selected images
            values |= {read_id(image): fields["set"] or None for image in form.getlist("picked")}
        is_json = False
    key = fields.get("gesture_key")
    if key is not None and not (isinstance(key, str) and GESTURE_KEY.fullmatch(key)):
        raise BadInput("The request could not be read. Reload the page.")
    if not all(value is None or isinstance(value, str) for value in values.values()):
        raise BadInput("An answer is yes, no or unsure.")
    return Posted(values, frozenset(map(read_id, alone)), key, fields, is_json)


def why(fields: Mapping[str, str], value: str, image: str) -> str:
    """What a form says of why an image is a no, as it is put behind the answer."""
    reason = fields.get(f"reason-{image}")
    return f":{reason}" if value == "no" and reason else ""


def read_id(text: object) -> int:
    """`text` as the key of a row, or an error page."""
    if isinstance(text, str | int) and re.fullmatch(r"[0-9]{1,18}", str(text)):
        return int(text)
    raise BadInput("The request names an image or a round in a way that can't be read.")


Answered = Annotated[Posted, Depends(read_posted)]


@router.get("")
def show_grid(
    request: Request,
    search_id: Id,
    search: NamedSearch,
    session: DbSession,
    person: SignedIn,
    after: str = "",
    hidden: OptionalId = None,
) -> Response:
    """The grid to answer now; who may only look sees the results instead."""
    if not may_answer(session, person, search):
        return see_other(f"/searches/{search_id}/results")
    visit = None if wants_fragment(request) else new_gesture_key()
    indexes = request.app.state.indexes
    sit_down(session, search, person=person, visit=visit, indexes=indexes)
    return render_grid(
        request, session, search, person, notice=NOTICES.get(after), visit=visit, hidden=hidden
    )


@router.post("/here")
def stay(search: NamedSearch, session: DbSession, person: SignedIn) -> Response:
    """A sign that the grid is still open; who else is there, and which images are still one's own.

    A grid that shows others is out of date.
    """
    own = stay_here(session, search, person=person)
    return JSONResponse({"people": name_here(session, search, person), "images": sorted(own)})


@router.post("/leave")
def go_away(
    search_id: Id, session: DbSession, person: SignedIn, visit: Annotated[str, Form()] = ""
) -> Response:
    """The grid was closed: others may be asked its images."""
    leave(session, get_search(session, person, search_id), person, visit)
    return Response(status_code=204)


async def save_answers(request: Request) -> Response:
    """Save half-given answers as they are given."""
    posted = await read_posted(request)

    def save(session: Session, person: Person) -> Response:
        search: Search = request.state.search
        saved = record_answers(
            session,
            search,
            person=person,
            round_id=posted.round_id,
            values=posted.values,
            alone=posted.alone,
            gesture_key=posted.gesture_key,
            is_locked=True,
        )
        if posted.is_json:
            return JSONResponse(
                {
                    "answers": saved.answers,
                    "found_events": saved.found_events,
                    "stale": saved.stale,
                    "can_undo": saved.can_undo,
                    "can_redo": saved.can_redo,
                }
            )
        after = "already" if saved.stale else ""
        return see(search, after=after, then=posted.fields.get("then"), back=posted.fields)

    return await in_one_thread(request, save, locks=True)


async def submit(request: Request) -> Response:
    """Submit the grid; the answer is the next one."""
    posted = await read_posted(request)
    # The two buttons that ask about images without an answer say more than the check box.
    rest = posted.fields.get("rest") or ("no" if "rest_are_no" in posted.fields else "later")

    def save(session: Session, person: Person) -> Response:
        search: Search = request.state.search
        submitted = submit_answers(
            session,
            search,
            person=person,
            round_id=posted.round_id,
            values=posted.values,
            alone=posted.alone,
            rest_are_no=rest == "no",
            is_chosen=rest != "again",  # of a grid without images nothing is said
            gesture_key=posted.gesture_key,
            indexes=request.app.state.indexes,
            is_locked=True,
        )
        after = "already" if submitted.already else ""
        if wants_fragment(request):
            return render_grid(request, session, search, person, notice=NOTICES.get(after))
        return see(search, after=after)

    return await in_one_thread(request, save, locks=True)


@router.post("/undo")
def take_back(
    request: Request, search: NamedSearch, session: DbSession, person: SignedIn, posted: Answered
) -> Response:
    """Take back the newest step that stands."""
    step = undo(session, search, person=person, gesture_key=posted.gesture_key)
    if wants_fragment(request):
        return render_grid(request, session, search, person, notice=step.sentence if step else None)
    return see(search, after="undo", back=posted.fields)


@router.post("/redo")
def do_again(
    request: Request, search: NamedSearch, session: DbSession, person: SignedIn, posted: Answered
) -> Response:
    """Do again the step taken back last."""
    step = redo(session, search, person=person, gesture_key=posted.gesture_key)
    if wants_fragment(request):
        return render_grid(request, session, search, person, notice=step.sentence if step else None)
    return see(search, after="redo", back=posted.fields)


async def list_upcoming(request: Request) -> Response:
    """The images that the next grid would most likely show, for the browser to fetch early.

    None while others are served: to guess takes as long as to choose.
    """

    def guess(session: Session, person: Person) -> Response:
        if not request.state.is_calm:
            return JSONResponse([])
        search: Search = request.state.search
        return JSONResponse(upcoming_images(session, search, person, request.app.state.indexes))

    return await in_one_thread(request, guess)


quick_routes = [
    QuickRoute("POST", "/searches/{search_id}/answers", save_answers),
    QuickRoute("POST", "/searches/{search_id}/submit", submit),
    QuickRoute("GET", "/searches/{search_id}/upcoming", list_upcoming),
]


@router.get("/images/{image_id}")
def show_image(
    request: Request, search_id: Id, image_id: Id, session: DbSession, person: SignedIn
) -> Response:
    """An image large, why it is shown, and the positives most like it."""
    search = get_search(session, person, search_id)
    explanation = explain_image(session, search, image_id, person, request.app.state.indexes)
    with_folders = not may_folders_be_labels(session, search.collection_id)
    beside: list[int] = []
    # Where folders may tell the answer, so may what lies beside an image.
    if with_folders and explanation.image.captured_at is None and not explanation.event_ids:
        beside = list_beside(session, explanation.image)
    shown_with: dict[str, Any] = {
        "with_folders": with_folders,
        "beside": beside,
        "beside_answers": read_current_answers(session, search, image_ids=beside),
        "found_as": [
            one for one in list_found_as(session, person, explanation.image) if one.id != search.id
        ],
    }
    shown_with |= describe_remarks(
        session,
        person,
        explanation.image,
        may_write=may_answer(session, person, search),
        return_to=f"/searches/{search_id}/images/{image_id}",
    )
    if wants_fragment(request):
        return render(
            request,
            "_large.html",
            person=person,
            search=search,
            explanation=explanation,
            sight=read_sight(session, person, search.collection_id),
            reasons=list_reasons(search),
            on_card=find_on_card(session, search, image_id),
            may_answer=may_answer(session, person, search),
            **shown_with,
        )
    grid = current_grid(session, search, person)
    shown = [card.image_id for card in grid.cards]
    place = shown.index(image_id) if image_id in shown else None
    return render(
        request,
        "large.html",
        person=person,
        search=search,
        explanation=explanation,
        sight=read_sight(session, person, search.collection_id),
        reasons=list_reasons(search),
        on_card=find_on_card(session, search, image_id),
        may_answer=may_answer(session, person, search),
        round_id=grid.round_id,
        before=shown[place - 1] if place else None,
        after=shown[place + 1] if place is not None and place + 1 < len(shown) else None,
        gesture_key=new_gesture_key,
        **shown_with,
    )


@router.get("/events/{image_id}")
def show_event(
    request: Request, search_id: Id, image_id: Id, session: DbSession, person: SignedIn
) -> Response:
    """The images of an image's event side by side, each to be answered by itself."""
    search = get_search(session, person, search_id)
    return render(
        request,
        "_event.html" if wants_fragment(request) else "event.html",
        person=person,
        search=search,
        strip=describe_event(session, search, image_id, person, request.app.state.indexes),
        with_folders=not may_folders_be_labels(session, search.collection_id),
        may_answer=may_answer(session, person, search),
        gesture_key=new_gesture_key,
    )


@router.get("/results")
def show_results(
    request: Request,
    search_id: Id,
    session: DbSession,
    person: SignedIn,
    show: str = "yes",
    page: PageNumber = 1,
    after: str = "",
    along: Count = 0,
    hidden: OptionalId = None,
) -> Response:
    """The images by their answers, and the likely ones without one.

    `along`: images of events that were changed with the one that a form named.
    """
    search = get_search(session, person, search_id)
    results = list_results(session, search, show=show, page=page, indexes=request.app.state.indexes)
    grid = current_grid(session, search, person)
    return render(
        request,
        "results.html",
        person=person,
        search=search,
        results=results,
        reasons=list_reasons(search),
        may_answer=may_answer(session, person, search),
        answered=grid.answered,
        has_head=grid.has_head,
        with_folders=not may_folders_be_labels(session, search.collection_id),
        can_undo=grid.can_undo,
        along=along,
        **tell_hidden(session, person, hidden),
        notice=NOTICES.get(after),
        gesture_key=new_gesture_key,
        tags_in_use=[tag for tag, _ in list_image_tags(session, search.collection_id)],
        max_tag_length=MAX_TAG_LENGTH,
        **describe_remarks(
            session,
            person,
            search,
            may_write=may_answer(session, person, search),
            return_to=f"/searches/{search_id}/results?show={results.show}",
        ),
    )


@router.post("/corrections")
def save_corrections(
    search_id: Id, session: DbSession, person: SignedIn, posted: Answered
) -> Response:
    """Change answers outside the grid."""
    search = get_search(session, person, search_id)
    along = {}
    if posted.values:
        along = correct_answers(
            session,
            search,
            person=person,
            values=posted.values,
            alone=posted.alone,
            gesture_key=posted.gesture_key,
        )
    if posted.is_json:
        found_events = count_found_events(
            session, get_current_round(session, search), read_current_answers(session, search)
        )
        return JSONResponse(
            {"answers": posted.values, "along": along, "found_events": found_events}
        )
    if "then" in posted.fields:
        return see(search, then=posted.fields["then"])
    after = "changed" if posted.values else ""
    along_count = sum(map(len, along.values()))
    return see(search, after=after, back={"back": "results", **posted.fields}, along=along_count)


@router.get("/history")
def show_history(
    request: Request,
    search_id: Id,
    session: DbSession,
    person: SignedIn,
    page: PageNumber = 1,
    after: str = "",
) -> Response:
    """Every step with its time and round; those taken back are marked."""
    search = get_search(session, person, search_id)
    grid = current_grid(session, search, person)
    return render(
        request,
        "history.html",
        person=person,
        search=search,
        history=list_history(session, search, page=page),
        can_undo=grid.can_undo,
        can_redo=grid.can_redo,
        may_answer=may_answer(session, person, search),
        notice=NOTICES.get(after),
        gesture_key=new_gesture_key,
    )


@router.get("/card")
def show_card(request: Request, search_id: Id, session: DbSession, person: SignedIn) -> Response:
    """The target card, for its owner to change."""
    search = get_own_search(session, person, search_id)
    texts = {"counts_as_yes": search.counts_as_yes, "counts_as_no": search.counts_as_no}
    return render_card(request, session, search, person, texts)


@router.post("/card")
def save_card(
    request: Request,
    search_id: Id,
    session: DbSession,
    person: SignedIn,
    counts_as_yes: Annotated[str, Form()] = "",
    counts_as_no: Annotated[str, Form()] = "",
) -> Response:
    """Say what counts as yes and what does not."""
    search = get_own_search(session, person, search_id)
    texts = {"counts_as_yes": counts_as_yes, "counts_as_no": counts_as_no}
    try:
        change_card(session, search, counts_as_yes=counts_as_yes, counts_as_no=counts_as_no)
    except BadInput as error:
        session.expire(search)
        return render_card(request, session, search, person, texts, problem=str(error))
    return see(search)


@router.post("/card/images")
def change_card_images(
    search_id: Id,
    session: DbSession,
    person: SignedIn,
    put: Annotated[str, Form(max_length=40)] = "",
) -> Response:
    """Put a picture on the card, or take it off: `<image>:yes`, `<image>:no`, `<image>:off`."""
    search = get_own_search(session, person, search_id)
    image, _, what = put.partition(":")
    put_on_card(session, search, read_id(image), what)
    return see_other(f"/searches/{search.id}/card")


@router.get("/settings")
def show_settings(
    request: Request, search_id: Id, session: DbSession, person: SignedIn
) -> Response:
    """The settings of a search, for its owner."""
    search = get_own_search(session, person, search_id)
    given = {
        "target_name": search.target_name,
        "strategy": search.strategy,
        "round_size": search.round_size,
        "embedder": search.embedder,
        "no_reasons": "\n".join(search.no_reasons),
        "learns_from_poor": search.learns_from_poor,
        "learns_from_events": search.learns_from_events,
    }
    return render_settings(request, session, search, person, given)


@router.post("/settings")
def save_settings(
    request: Request,
    search_id: Id,
    session: DbSession,
    person: SignedIn,
    target_name: Annotated[str, Form()] = "",
    strategy: Annotated[str, Form()] = "",
    round_size: Annotated[str, Form()] = "",
    embedder: Annotated[str, Form()] = "",
    no_reasons: Annotated[str, Form(max_length=2_000)] = "",
    learns_from_poor: Annotated[bool, Form()] = False,
    learns_from_events: Annotated[bool, Form()] = False,
) -> Response:
    """Change the settings; what can't be used is said beside what was typed."""
    search = get_own_search(session, person, search_id)
    state = request.app.state
    try:
        if not round_size.isdecimal():
            raise BadInput("Images per round must be a whole number.")
        with session.begin_nested():  # all of it or nothing
            change_search(
                session,
                search,
                target_name=target_name,
                strategy=strategy,
                round_size=int(round_size[:9]),
                no_reasons=no_reasons.splitlines(),
                learns_from_poor=learns_from_poor,
                learns_from_events=learns_from_events,
            )
            known = {one.embedder for one in list_indexes(session, search.collection_id)}
            if embedder or search.embedder in known:
                move_search(
                    session,
                    search,
                    embedder=embedder or search.embedder,
                    indexes=state.indexes,
                    embedders=state.embedders,
                    settings=state.settings,
                )
    except BadInput as error:
        session.expire(search)  # lets go of what was changed before the error
        given = {
            "target_name": target_name,
            "strategy": strategy,
            "round_size": round_size,
            "embedder": embedder or search.embedder,
            "no_reasons": no_reasons,
            "learns_from_poor": learns_from_poor,
            "learns_from_events": learns_from_events,
        }
        return render_settings(request, session, search, person, given, problem=str(error))
    return see(search)


@router.get("/export.{file_format}")
def export(
    request: Request, search_id: Id, file_format: str, session: DbSession, person: SignedIn
) -> Response:
    """Every answer of the search as a file."""
    formats: dict[str, tuple[Format, str]] = {
        "csv": ("csv", "text/csv; charset=utf-8"),
        "jsonl": ("jsonl", "application/x-ndjson"),
    }
    if file_format not in formats:
        raise NotFound("Exports are made as .csv and .jsonl.")
    search = get_search(session, person, search_id)
    what = f"Exported “{search.target_name}” as {file_format}"
    note(session, person, "export", what, search=search)
    known_format, media_type = formats[file_format]
    sight = read_sight(session, person, search.collection_id)
    indexes = request.app.state.indexes
    lines = write_export(session, search, indexes, file_format=known_format, sight=sight)
    name = re.sub(r"[^\w. -]+", "_", search.target_name).strip(" ._") or "search"
    return Response(
        "".join(lines),
        media_type=media_type,
        headers={
            "Content-Disposition": f'attachment; filename="rarefind-{search.id}.{file_format}"; '
            f"filename*=UTF-8''{quote(f'{name}.{file_format}')}"
        },
    )


def render_grid(
    request: Request,
    session: Session,
    search: Search,
    person: Person,
    *,
    notice: str | None,
    visit: str | None = None,
    hidden: int | None = None,
) -> Response:
    """The whole grid screen, or the part of it that htmx puts in place."""
    grid = current_grid(session, search, person)
    fragment = wants_fragment(request)
    return render(
        request,
        "_grid.html" if fragment else "search.html",
        person=person,
        grid=grid,
        examples=[] if fragment else list_examples(session, search),
        card=None if fragment else read_card(session, search),
        reasons=list_reasons(search),
        columns=count_columns(grid),
        with_folders=not may_folders_be_labels(session, search.collection_id),
        **({} if fragment else tell_filter(session, person, search)),
        **(
            {}
            if fragment
            else describe_remarks(
                session, person, search, may_write=True, return_to=f"/searches/{search.id}"
            )
        ),
        notice=notice,
        visit=visit,
        **tell_hidden(session, person, hidden),
        fragment=fragment,
        gesture_key=new_gesture_key,
        # Remembered in cookies, so that the first paint is right.
        rail_closed=request.cookies.get("rarefind_rail") == "closed",
        why_shown=request.cookies.get("rarefind_why") == "shown",
    )


def tell_hidden(session: Session, person: Person, hidden: int | None) -> dict[str, Any]:
    """For the notice after images were hidden: the one named and how many it was, if any were."""
    together = list_hidden_with(session, person, hidden) if hidden else []
    return {"hidden": hidden if together else None, "hidden_count": len(together)}


def tell_filter(session: Session, person: Person, search: Search) -> dict[str, Any]:
    """What the rail says of a search's filter."""
    if search.filter is None:
        return {"chips": []}
    chosen = read_search_filter(search)
    return describe_filter(session, person, search.collection_id, chosen, with_offer=False)


def render_settings(
    request: Request,
    session: Session,
    search: Search,
    person: Person,
    given: Mapping[str, object],
    problem: str | None = None,
) -> Response:
    """The settings form, with what was given and what is wrong with it."""
    return render(
        request,
        "search_settings.html",
        status=422 if problem else 200,
        person=person,
        search=search,
        given=given,
        problem=problem,
        strategies=list_strategies(session, search.collection_id, request.app.state.indexes),
        indexes=list_indexes(session, search.collection_id),
        has_events=find_grouping_id(session, search.collection_id) is not None,
        sizes=ROUND_SIZES,
    )


def render_card(
    request: Request,
    session: Session,
    search: Search,
    person: Person,
    texts: Mapping[str, str],
    problem: str | None = None,
) -> Response:
    """The target card's page, with what was typed and what is wrong with it."""
    card = read_card(session, search)
    shown = {image.id for image in card.yes + card.no}
    likely = {
        value: [one for one in list_answered(session, search, value, 24) if one not in shown]
        for value in ("yes", "no")
    }
    return render(
        request,
        "search_card.html",
        status=422 if problem else 200,
        person=person,
        search=search,
        texts=texts,
        problem=problem,
        card=card,
        examples=list_examples(session, search),
        likely=likely,
    )


def count_columns(grid: Grid) -> int:
    """Columns that make a wide window's images largest: three rows for twelve images."""
    count = len(grid.cards)
    return count if count < 3 else max(3, min(MOST_COLUMNS, round(math.sqrt(count * 4 / 3))))


def see(
    search: Search,
    *,
    after: str = "",
    then: object = None,
    back: Mapping[str, Any] | None = None,
    along: int = 0,
) -> RedirectResponse:
    """Lead a form without scripts back to where it was sent from, or on to the next image."""
    where, query = f"/searches/{search.id}", {"after": after} if after else {}
    if along:
        query["along"] = str(along)
    back = back or {}
    if then:
        where += f"/images/{read_id(then)}"
    elif back.get("back") == "results":
        where += "/results"
        query = {"show": str(back.get("show", "yes")), **query}
        if "page" in back:
            query["page"] = str(read_id(back["page"]))
    elif back.get("back") == "history":
        where += "/history"
    elif back.get("back") == "event":
        where += f"/events/{read_id(back.get('event'))}"
    return see_other(where + ("?" + urlencode(query) if query else ""))


def new_gesture_key() -> str:
    """Names one gesture: a double click or a repeated request is the same one."""
    return uuid.uuid4().hex
