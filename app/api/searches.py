"""Collections and searches for programs: the same verbs as the pages, as JSON."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session

from app.access import get_collection, get_own_search, get_search, may_answer
from app.adjusting import DEFAULT_ROUND_SIZE, DEFAULT_STRATEGY, move_search, read_search_filter
from app.answers import Values, split_reason
from app.api.models import (
    LARGEST_ID,
    AskForExport,
    CardModel,
    ChangeRemarks,
    CollectionModel,
    ExportModel,
    Gesture,
    GiveAnswers,
    GivenAnswers,
    Id,
    ImageModel,
    IndexModel,
    MoveSearch,
    NoteModel,
    OpenedSearch,
    OpenSearch,
    Problem,
    RemarksModel,
    ResultModel,
    ResultsModel,
    RoundModel,
    SearchModel,
    StepModel,
    SubmitAnswers,
    SubmittedRound,
    TaggedImages,
    TagImages,
    Where,
)
from app.audit import note
from app.browsing import get_image, list_images_after
from app.cards import list_reasons
from app.collecting import list_collections
from app.database import DbSession
from app.deploying import may_folders_be_labels, may_see_folders
from app.downloads import ask_for_file, get_made
from app.errors import BadInput
from app.exports.rows import Format, write_export
from app.filtering import GRID, count_kept, cover_filter, read_filter, split_pairs
from app.indexes import list_indexes
from app.remarks import (
    About,
    Remarks,
    add_tags,
    change_note,
    read_remarks,
    read_remarks_of_images,
    remove_note,
    tag_images,
    take_tag_off,
    write_note,
)
from app.reporting import current_grid, list_examples, list_searches
from app.results import list_results
from app.searching import open_search, record_answers, sit_down, submit_answers
from app.security import SignedIn
from app.sensitive import read_sight
from app.steps import Step, redo, undo
from app.tables import Person, Search

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}

PROBLEMS: dict[int | str, str] = {
    401: "No token, or one that does not work.",
    403: "The token's scope, or its person's role, is for less.",
    404: "There is no such thing, or it is not yours.",
    409: "It can't be done now, or was done already.",
    413: "Too many bytes for one request.",
    421: "The request names a host that is not this server's.",
    422: "A value that can't be used; “detail” says which.",
    429: "Too much at once; the header Retry-After says when to go on.",
    500: "The files of an index are damaged, or a fault of Rarefind.",
    503: "The database does not answer now.",
    507: "The disk is full.",
}
token = HTTPBearer(
    auto_error=False,  # who is asking is found by app.security; this documents the header
    description="A token, made on the page of one's account or by “rarefind token add NAME”. Its "
    "scope says what it may: “read” looks (every GET), “search” also opens searches and answers "
    "(every POST here), “admin” does all that its person may. It sees what its person sees: what "
    "belongs to others is answered with 404, what they may only look at with 403.",
)
router = APIRouter(
    prefix="/api/v1",
    dependencies=[Depends(token)],
    responses={
        status: {"model": Problem, "description": said} for status, said in PROBLEMS.items()
    },
)


@router.get("/collections", tags=["collections"])
def read_collections(session: DbSession, person: SignedIn) -> list[CollectionModel]:
    """Every collection you see."""
    return [
        CollectionModel(
            collection_id=one.collection.id,
            name=one.collection.name,
            notice=one.collection.notice,
            image_count=one.image_count,
        )
        for one in list_collections(session, person, now=datetime.now(UTC))
    ]


@router.get("/collections/{collection_id}/images", tags=["collections"])
def read_images(
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
    after: Annotated[int, Query(ge=0, le=LARGEST_ID, description="The last id you have.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1_000)] = 1_000,
    where: Annotated[Where, Query()] = [],  # noqa: B006 - FastAPI copies it
) -> list[ImageModel]:
    """The images of a collection by id; ask again from the last one until the list is empty.

    With a filter, those that it keeps.
    """
    get_collection(session, person, collection_id)
    chosen = read_filter(session, collection_id, split_pairs(where), person=person)
    images = list_images_after(session, collection_id, image_id=after, at_most=limit, chosen=chosen)
    remarks = read_remarks_of_images(session, [image.id for image in images])
    with_folders = not may_folders_be_labels(session, collection_id)
    is_told_all = may_see_folders(session, person, collection_id)
    return [
        ImageModel(
            image_id=image.id,
            path=image.path if with_folders else leave_folders(image.path),
            full_path=image.path if is_told_all else None,
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            tags=remarks.get(image.id, Remarks()).tags,
            captured_at=image.captured_at,
        )
        for image in images
    ]


@router.get("/collections/{collection_id}/images/{image_id}/remarks", tags=["tags and notes"])
def read_image_remarks(
    session: DbSession, person: SignedIn, collection_id: Id, image_id: Id
) -> RemarksModel:
    """The tags and notes of an image."""
    get_collection(session, person, collection_id)
    return describe_remarks(session, get_image(session, image_id, collection_id=collection_id))


@router.post("/collections/{collection_id}/images/{image_id}/remarks", tags=["tags and notes"])
def post_image_remarks(
    session: DbSession, person: SignedIn, collection_id: Id, image_id: Id, body: ChangeRemarks
) -> RemarksModel:
    """Add tags and notes to an image, or take them away; gives what stands on it then."""
    get_collection(session, person, collection_id)
    image = get_image(session, image_id, collection_id=collection_id)
    return change_remarks(session, person, image, body)


@router.post("/collections/{collection_id}/tags", tags=["tags and notes"])
def post_tags(
    session: DbSession, person: SignedIn, collection_id: Id, body: TagImages
) -> TaggedImages:
    """Tag many images of a collection at once."""
    collection = get_collection(session, person, collection_id)
    changed: set[int] = set()
    for tags, is_on in ((body.add_tags, True), (body.remove_tags, False)):
        if tags:
            text = ",".join(tags)
            by_tag = tag_images(session, person, collection, body.image_ids, text, is_on=is_on)
            changed.update(*by_tag.values())
    return TaggedImages(image_ids=sorted(changed))


@router.get("/collections/{collection_id}/indexes", tags=["collections"])
def read_indexes(
    session: DbSession,
    person: SignedIn,
    collection_id: Id,
) -> list[IndexModel]:
    """The indexes of a collection side by side, the newest first."""
    get_collection(session, person, collection_id)
    return [
        IndexModel.model_validate(one, from_attributes=True)
        for one in list_indexes(session, collection_id)
    ]


@router.post("/collections/{collection_id}/searches", status_code=201, tags=["searches"])
def post_search(
    request: Request, session: DbSession, person: SignedIn, collection_id: Id, body: OpenSearch
) -> OpenedSearch:
    """Open a search from words, example images or both; gives its first round."""
    state = request.app.state
    chosen = read_filter(session, collection_id, split_pairs(body.where), person=person)
    kept = count_kept(session, collection_id, chosen)
    if chosen and not kept.count:
        raise BadInput("No image is left with this filter. Take a part of it away.")
    search = open_search(
        session,
        person=person,
        collection_id=collection_id,
        target_name=body.target_name,
        counts_as_yes=body.counts_as_yes,
        strategy=DEFAULT_STRATEGY if body.strategy is None else body.strategy,
        round_size=DEFAULT_ROUND_SIZE if body.round_size is None else body.round_size,
        words=body.words,
        image_ids=body.image_ids,
        photo_ids=[],
        embedder=body.embedder,
        chosen=chosen,
        indexes=state.indexes,
        embedders=state.embedders,
        settings=state.settings,
        seed=body.seed,
    )
    return OpenedSearch(
        **describe_search(session, search, person),
        image_count=kept.count,
        left_out=kept.left_out,
        round=describe_round(session, search, person),
    )


@router.get("/searches", tags=["searches"])
def read_searches(
    session: DbSession,
    person: SignedIn,
    find: Annotated[
        str,
        Query(max_length=200, description="Words in the name, what counts, a tag or a note."),
    ] = "",
) -> list[SearchModel]:
    """The searches you own or answer in, the one touched last first."""
    return [
        SearchModel(**describe_search(session, one.search, person))
        for one in list_searches(session, person, find=find)
    ]


@router.get("/searches/{search_id}", tags=["searches"])
def read_search(session: DbSession, person: SignedIn, search_id: Id) -> SearchModel:
    """A search that you see."""
    search = get_search(session, person, search_id)
    return SearchModel(**describe_search(session, search, person))


@router.get("/searches/{search_id}/remarks", tags=["tags and notes"])
def read_search_remarks(session: DbSession, person: SignedIn, search_id: Id) -> RemarksModel:
    """The tags and notes of a search."""
    return describe_remarks(session, get_search(session, person, search_id))


@router.post("/searches/{search_id}/remarks", tags=["tags and notes"])
def post_search_remarks(
    session: DbSession, person: SignedIn, search_id: Id, body: ChangeRemarks
) -> RemarksModel:
    """Add tags and notes to a search, or take them away; gives what stands on it then."""
    return change_remarks(session, person, get_search(session, person, search_id), body)


@router.post("/searches/{search_id}/move", tags=["searches"])
def post_move(
    request: Request, session: DbSession, person: SignedIn, search_id: Id, body: MoveSearch
) -> SearchModel:
    """Let the next rounds come from another index of the collection; answers stay."""
    search = get_own_search(session, person, search_id)
    state = request.app.state
    move_search(
        session,
        search,
        embedder=body.embedder,
        indexes=state.indexes,
        embedders=state.embedders,
        settings=state.settings,
    )
    return SearchModel(**describe_search(session, search, person))


@router.get("/searches/{search_id}/round", tags=["searches"])
def read_round(request: Request, session: DbSession, person: SignedIn, search_id: Id) -> RoundModel:
    """Your round to answer now, with the answers given so far.

    In a shared search everybody has rounds of their own; who only looks is shown the newest.
    """
    search = get_search(session, person, search_id)
    if may_answer(session, person, search):
        indexes = request.app.state.indexes
        sit_down(session, search, person=person, visit=None, indexes=indexes)
    return describe_round(session, search, person)


@router.post("/searches/{search_id}/answers", tags=["searches"])
def post_answers(
    session: DbSession, person: SignedIn, search_id: Id, body: GiveAnswers
) -> GivenAnswers:
    """Save answers without submitting the round."""
    search = get_search(session, person, search_id)
    recorded = record_answers(
        session,
        search,
        person=person,
        round_id=body.round_id,
        values=with_reasons(body),
        alone=body.alone,
        gesture_key=body.gesture_key,
    )
    split = {image_id: split_reason(given) for image_id, given in recorded.answers.items()}
    answers = {image_id: value for image_id, (value, _) in split.items()}
    reasons = {image_id: reason for image_id, (_, reason) in split.items() if reason}
    return GivenAnswers.model_validate(
        {"answers": answers, "reasons": reasons, "stale": recorded.stale}
    )


@router.post("/searches/{search_id}/submit", tags=["searches"])
def post_submit(
    request: Request, session: DbSession, person: SignedIn, search_id: Id, body: SubmitAnswers
) -> SubmittedRound:
    """Submit a round with its last answers; gives the next one."""
    search = get_search(session, person, search_id)
    submitted = submit_answers(
        session,
        search,
        person=person,
        round_id=body.round_id,
        values=with_reasons(body),
        alone=body.alone,
        rest_are_no=body.rest_are_no,
        is_chosen="rest_are_no" in body.model_fields_set,  # else their tick in the browser stays
        gesture_key=body.gesture_key,
        indexes=request.app.state.indexes,
    )
    return SubmittedRound(already=submitted.already, round=describe_round(session, search, person))


@router.post("/searches/{search_id}/undo", tags=["searches"])
def post_undo(session: DbSession, person: SignedIn, search_id: Id, body: Gesture) -> StepModel:
    """Take back the newest step: an answer, or a whole submit."""
    search = get_search(session, person, search_id)
    step = undo(session, search, person=person, gesture_key=body.gesture_key)
    return describe_step(session, search, person, step)


@router.post("/searches/{search_id}/redo", tags=["searches"])
def post_redo(session: DbSession, person: SignedIn, search_id: Id, body: Gesture) -> StepModel:
    """Do again the step that was taken back last."""
    search = get_search(session, person, search_id)
    step = redo(session, search, person=person, gesture_key=body.gesture_key)
    return describe_step(session, search, person, step)


@router.get("/searches/{search_id}/results", tags=["searches"])
def read_results(
    request: Request,
    session: DbSession,
    person: SignedIn,
    search_id: Id,
    show: Literal["yes", "likely", "unsure", "no", "open"] = "yes",
    page: Annotated[int, Query(ge=1, le=1_000_000_000)] = 1,
) -> ResultsModel:
    """Images answered so, left open, or likely and without an answer; a page of them."""
    search = get_search(session, person, search_id)
    results = list_results(session, search, show=show, page=page, indexes=request.app.state.indexes)
    with_folders = not may_folders_be_labels(session, search.collection_id)
    images = [
        ResultModel.model_validate(
            {
                "image_id": card.image_id,
                "path": card.path if with_folders else leave_folders(card.path),
                "answer": card.answer,
                "no_reason": card.no_reason,
                "answered_by": card.who,
                "answered_at": card.at,
                "round_number": card.round_number,
                "score": card.score,
                "probability": card.probability,
                "tags": card.remarks.tags,
                "notes": describe_notes(card.remarks),
            }
        )
        for card in results.cards
    ]
    return ResultsModel(
        show=results.show,
        images=images,
        total=results.total,
        page=results.page,
        pages=results.pages,
        counts=results.counts,
    )


@router.get("/searches/{search_id}/export", tags=["searches"], response_class=StreamingResponse)
def read_export(
    request: Request,
    session: DbSession,
    person: SignedIn,
    search_id: Id,
    file_format: Annotated[Format, Query(alias="format")] = "csv",
) -> StreamingResponse:
    """Every answered image, as CSV or JSON Lines."""
    search = get_search(session, person, search_id)
    what = f"Exported “{search.target_name}” as {file_format}"
    note(session, person, "export", what, search=search)
    sight = read_sight(session, person, search.collection_id)
    indexes = request.app.state.indexes
    lines = write_export(session, search, indexes, file_format=file_format, sight=sight)
    # Gathered first: the session ends with this function, and an error must not cut a file short.
    return StreamingResponse(iter(list(lines)), media_type=MEDIA_TYPES[file_format])


@router.post("/exports", status_code=202, tags=["exports"])
def post_export(
    request: Request, session: DbSession, person: SignedIn, body: AskForExport
) -> ExportModel:
    """Have an export made as a file, in the background: for those that take long."""
    search = get_search(session, person, body.search_id)
    export = ask_for_file(session, person, search, body.name)
    return describe_export(request, session, person, export.id)


@router.get("/exports/{export_id}", tags=["exports"])
def read_made(request: Request, session: DbSession, person: SignedIn, export_id: Id) -> ExportModel:
    """How the making of a file stands that you asked for."""
    return describe_export(request, session, person, export_id)


def describe_export(
    request: Request, session: Session, person: Person, export_id: int
) -> ExportModel:
    """A file that was asked for."""
    settings = request.app.state.settings
    made = get_made(session, person, export_id, settings=settings, now=datetime.now(UTC))
    return ExportModel.model_validate(
        {
            "export_id": export_id,
            "search_id": made.export.search_id,
            "name": made.export.name,
            "state": made.state,
            "problem": made.work.job.problem,
            "size_bytes": made.export.size_bytes,
            "file": f"/exports/{export_id}/file" if made.state == "ready" else None,
            "kept_until": made.gone_at,
        }
    )


def with_reasons(body: GiveAnswers) -> Values:
    """Answers as the search takes them: a no with its reason."""
    for image_id in body.reasons:
        if body.answers.get(image_id) != "no":
            raise BadInput(
                f"Image {image_id} has a reason and is not answered no here. Only a no has a "
                "reason."
            )
    return {
        image_id: f"no:{body.reasons[image_id]}" if image_id in body.reasons else value
        for image_id, value in body.answers.items()
    }


def change_remarks(
    session: Session, person: Person, about: About, body: ChangeRemarks
) -> RemarksModel:
    """All that a request asks for, or nothing of it."""
    if body.add_tags:
        add_tags(session, person, about, ",".join(body.add_tags))
    for tag in body.remove_tags:
        take_tag_off(session, person, about, tag.strip().lower())
    for note_id, text in body.change_note.items():
        change_note(session, person, about, note_id, text)
    for note_id in body.remove_notes:
        remove_note(session, person, about, note_id)
    if body.add_note is not None:
        write_note(session, person, about, body.add_note)
    return describe_remarks(session, about)


def describe_remarks(session: Session, about: About) -> RemarksModel:
    """What stands on an image or a search."""
    remarks = read_remarks(session, about)
    return RemarksModel(tags=remarks.tags, notes=describe_notes(remarks))


def describe_notes(remarks: Remarks) -> list[NoteModel]:
    """Notes in the order of writing."""
    return [
        NoteModel(
            note_id=note.note_id,
            text=note.text,
            by=note.who,
            at=note.at,
            changed_at=note.changed_at,
        )
        for note in remarks.notes
    ]


def leave_folders(path: str) -> str:
    """The last part of a path: its folders may be labels."""
    return path.rsplit("/", 1)[-1]


def describe_search(session: Session, search: Search, person: Person) -> dict[str, Any]:
    """The fields of SearchModel."""
    sight = read_sight(session, person, search.collection_id)
    chosen = cover_filter(read_search_filter(search), sight)
    words = (example.words for example in list_examples(session, search) if example.words)
    return {
        "words": next(words, ""),
        "embedder": search.embedder,
        "search_id": search.id,
        "collection_id": search.collection_id,
        "target_name": search.target_name,
        "counts_as_yes": search.counts_as_yes,
        "strategy": search.strategy,
        "round_size": search.round_size,
        "seed": search.seed,
        "no_reasons": list(list_reasons(search)),
        "tags": read_remarks(session, search).tags,
        "where": [f"{key}={value}" for key, value in chosen.without(GRID)],
    }


def describe_round(session: Session, search: Search, person: Person) -> RoundModel:
    """A person's round to answer now."""
    grid = current_grid(session, search, person)
    cards = [CardModel.model_validate(card, from_attributes=True) for card in grid.cards]
    if may_folders_be_labels(session, search.collection_id):
        cards = [card.model_copy(update={"path": leave_folders(card.path)}) for card in cards]
    return RoundModel(
        round_id=grid.round_id,
        number=grid.number,
        images=cards,
        found=grid.found,
        found_events=grid.found_events,
        answered=grid.answered,
        can_undo=grid.can_undo,
        can_redo=grid.can_redo,
        proposing_ms=grid.proposing_ms,
    )


def describe_step(session: Session, search: Search, person: Person, step: Step | None) -> StepModel:
    """What an undo or redo did, and the round that is current now."""
    return StepModel(
        sentence=step.sentence if step else None, round=describe_round(session, search, person)
    )
