"""Collections and searches for programs: the same verbs as the pages, as JSON."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session

from app.access import get_collection, get_own_search, get_search, may_answer
from app.api.models import (
    LARGEST_ID,
    CardModel,
    CollectionModel,
    Gesture,
    GiveAnswers,
    GivenAnswers,
    Id,
    ImageModel,
    IndexModel,
    MoveSearch,
    OpenedSearch,
    OpenSearch,
    Problem,
    ResultModel,
    ResultsModel,
    RoundModel,
    SearchModel,
    StepModel,
    SubmitAnswers,
    SubmittedRound,
)
from app.audit import note
from app.browsing import list_images_after
from app.collecting import list_collections
from app.database import DbSession
from app.exports.rows import Format, write_export
from app.indexes import list_indexes
from app.reporting import current_grid, list_examples, list_results, list_searches
from app.searching import (
    DEFAULT_ROUND_SIZE,
    DEFAULT_STRATEGY,
    Step,
    move_search,
    open_search,
    record_answers,
    redo,
    sit_down,
    split_reason,
    submit_answers,
    undo,
)
from app.security import SignedIn
from app.tables import Person, Search

MEDIA_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}

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
    responses={status: {"model": Problem} for status in (401, 403, 404, 409, 422)},
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
) -> list[ImageModel]:
    """The images of a collection by id; ask again from the last one until the list is empty."""
    get_collection(session, person, collection_id)
    return [
        ImageModel(
            image_id=image.id,
            path=image.path,
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            captured_at=image.captured_at,
        )
        for image in list_images_after(session, collection_id, image_id=after, at_most=limit)
    ]


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
        indexes=state.indexes,
        embedders=state.embedders,
        settings=state.settings,
        seed=body.seed,
    )
    return OpenedSearch(
        **describe_search(session, search), round=describe_round(session, search, person)
    )


@router.get("/searches", tags=["searches"])
def read_searches(session: DbSession, person: SignedIn) -> list[SearchModel]:
    """The searches you own or answer in, the one touched last first."""
    return [
        SearchModel(**describe_search(session, one.search))
        for one in list_searches(session, person)
    ]


@router.get("/searches/{search_id}", tags=["searches"])
def read_search(session: DbSession, person: SignedIn, search_id: Id) -> SearchModel:
    """A search that you see."""
    return SearchModel(**describe_search(session, get_search(session, person, search_id)))


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
    return SearchModel(**describe_search(session, search))


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
        values=dict(body.answers),
        alone=body.alone,
        gesture_key=body.gesture_key,
    )
    answers = {image_id: split_reason(given)[0] for image_id, given in recorded.answers.items()}
    return GivenAnswers.model_validate({"answers": answers, "stale": recorded.stale})


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
        values=dict(body.answers),
        alone=body.alone,
        rest_are_no=body.rest_are_no,
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
    """Images answered so, left open, or likely and not yet seen; a page of them."""
    search = get_search(session, person, search_id)
    results = list_results(session, search, show=show, page=page, indexes=request.app.state.indexes)
    images = [
        ResultModel.model_validate(
            {
                "image_id": card.image_id,
                "path": card.path,
                "answer": card.answer,
                "answered_by": card.who,
                "answered_at": card.at,
                "round_number": card.round_number,
                "score": card.score,
                "probability": card.probability,
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
    lines = write_export(session, search, request.app.state.indexes, file_format=file_format)
    # Gathered first: the session ends with this function, and an error must not cut a file short.
    return StreamingResponse(iter(list(lines)), media_type=MEDIA_TYPES[file_format])


def describe_search(session: Session, search: Search) -> dict[str, Any]:
    """The fields of SearchModel."""
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
    }


def describe_round(session: Session, search: Search, person: Person) -> RoundModel:
    """A person's round to answer now."""
    grid = current_grid(session, search, person)
    return RoundModel(
        round_id=grid.round_id,
        number=grid.number,
        images=[CardModel.model_validate(card, from_attributes=True) for card in grid.cards],
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
