"""The results of a search, galleries of images with their answers, and the images of one event.

Nothing here changes anything.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from math import ceil

import numpy as np
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, aliased

from app.answers import read_current_answers
from app.detecting import list_boxes
from app.engine.head import Head, probabilities
from app.engine.index import VectorIndex
from app.engine.loop import rank_likely
from app.errors import NotFound
from app.events import count_events, list_asked, list_events_of, read_pool
from app.indexing import OpenIndexes
from app.premises import find_rows, list_left_out, read_engine_answers, read_head
from app.remarks import Remarks, read_remarks_of_images
from app.reporting import count_found_events, get_current_round, get_round_of, list_answered
from app.seats import list_standing, list_tips
from app.tables import Action, Answer, Box, Image, ImageIndex, Person, Round, RoundImage, Search

RESULTS_PER_PAGE = 60
MOST_LIKELY = 600  # ten pages of results: who needs more answers some first
RESULT_KINDS = ("yes", "likely", "unsure", "no", "open")


@dataclass(frozen=True)
class ResultCard:
    """One image of the results."""

    image_id: int
    path: str
    width: int
    height: int
    answer: str | None
    no_reason: str | None
    # The path of the image of its event that was looked at instead; none of a removed one.
    answered_with: str | None
    who: str | None
    at: datetime | None
    round_number: int | None
    score: float | None  # by the head of the current round
    probability: float | None
    remarks: Remarks
    boxes: list[Box]


@dataclass(frozen=True)
class ResultsPage:
    """One page of a results gallery."""

    show: str
    cards: list[ResultCard]
    total: int  # that are shown, on all its pages
    page: int
    pages: int
    counts: dict[str, int]
    found_events: int | None  # None where each image stands by itself
    likely_events: int | None  # likewise
    likely_are_more: bool  # than `counts` says, in a collection too large to count them


@dataclass(frozen=True)
class Likely:
    """Images without an answer that the head takes for positives."""

    image_ids: list[int]  # the likeliest MOST_LIKELY, best first
    every_id: list[int]  # of all of them, as far as they were counted
    are_more: bool


@dataclass(frozen=True)
class EventStrip:
    """The images of an event, and the one of them that was asked for."""

    image_id: int
    round_id: int
    is_asked: bool  # by this round; else answers are corrections
    cards: list[ResultCard]


def describe_event(
    session: Session, search: Search, image_id: int, person: Person, indexes: OpenIndexes
) -> EventStrip:
    """The images of an image's event with their answers, in order of time; or the image alone."""
    image = session.get(Image, image_id)
    if image is None or image.collection_id != search.collection_id:
        raise NotFound("There is no such image in this collection.")
    made = get_round_of(session, search, person)
    image_ids = list_events_of(session, made, [image_id]).get(image_id, [image_id])
    index = indexes.get(session.get_one(ImageIndex, made.index_id))
    is_asked = image_id in list_asked(session, made.id)
    cards = describe_images(session, search, image_ids, index)
    return EventStrip(image_id, made.id, is_asked, cards)


def list_results(
    session: Session, search: Search, *, show: str, page: int, indexes: OpenIndexes
) -> ResultsPage:
    """A gallery of answered images, of those left open, or of likely ones without an answer."""
    if show not in RESULT_KINDS:
        raise NotFound("There is no such gallery.")
    made = get_current_round(session, search)
    index = indexes.get(session.get_one(ImageIndex, made.index_id))
    head = read_head(made)
    answers = read_current_answers(session, search)
    left_open = _list_left_open(session, search, answers)
    likely = Likely([], [], are_more=False)
    if head is not None:
        likely = _list_likely(session, search, made, head, index)
    if show == "likely":
        image_ids = likely.image_ids
    elif show == "open":
        image_ids = left_open
    else:
        image_ids = list_answered(session, search, show)
    counts = dict.fromkeys(RESULT_KINDS, 0) | Counter(answers.values())
    counts |= {"open": len(left_open), "likely": len(likely.every_id)}
    pages = max(1, ceil(len(image_ids) / RESULTS_PER_PAGE))
    page = min(max(page, 1), pages)
    wanted = image_ids[(page - 1) * RESULTS_PER_PAGE : page * RESULTS_PER_PAGE]
    cards = describe_images(session, search, wanted, index)
    return ResultsPage(
        show=show,
        cards=cards,
        total=len(image_ids),
        page=page,
        pages=pages,
        counts=counts,
        found_events=count_found_events(session, made, answers),
        likely_events=count_events(session, made, likely.every_id),
        likely_are_more=likely.are_more,
    )


def describe_images(
    session: Session, search: Search, image_ids: list[int], index: VectorIndex
) -> list[ResultCard]:
    """Images with their newest answer, and their score by the head of the current round."""
    head = read_head(get_current_round(session, search))
    along = aliased(Image)
    newest = (
        select(
            Answer.image_id,
            Answer.value,
            Answer.reason,
            along.path.label("along"),
            Person.name,
            Action.at,
            Round.number,
        )
        .join(Action, Action.id == Answer.action_id)
        .join(Person, Person.id == Action.person_id)
        .outerjoin(Round, Round.id == Action.round_id)
        .outerjoin(along, (along.id == Answer.with_image_id) & along.removed_at.is_(None))
        .where(Answer.search_id == search.id, Answer.image_id.in_(image_ids))
        .order_by(Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.image_id))
    )
    events = {row.image_id: row for row in session.execute(newest) if row.value != "cleared"}
    images = {
        image.id: image for image in session.scalars(select(Image).where(Image.id.in_(image_ids)))
    }
    held = np.array([i for i in image_ids if i in images], dtype=np.int64)
    held = held[index.holds(held)]
    figures: dict[int, tuple[float, float]] = {}
    if head is not None and len(held):
        scores = index.vectors[index.rows_of(held)] @ head.weights + np.float32(head.bias)
        pairs = zip(scores.tolist(), probabilities(scores).tolist(), strict=True)
        figures = dict(zip(held.tolist(), pairs, strict=True))
    remarks = read_remarks_of_images(session, image_ids)
    boxes = list_boxes(session, image_ids)
    cards = []
    for image_id in image_ids:
        image, event = images[image_id], events.get(image_id)
        score, probability = figures.get(image_id, (None, None))
        cards.append(
            ResultCard(
                image_id=image_id,
                path=image.path,
                width=image.width,
                height=image.height,
                answer=event.value if event else None,
                no_reason=event.reason if event else None,
                answered_with=event.along if event else None,
                who=event.name if event else None,
                at=event.at if event else None,
                round_number=event.number if event else None,
                score=score,
                probability=probability,
                remarks=remarks.get(image_id, Remarks()),
                boxes=boxes.get(image_id, []),
            )
        )
    return cards


def _list_left_open(session: Session, search: Search, answers: dict[int, str]) -> list[int]:
    """Images of submitted rounds that have no answer, the latest shown first."""
    chain = list_standing(search.id)
    shown = session.scalars(
        select(RoundImage.image_id)
        .join(Image, Image.id == RoundImage.image_id)
        .where(
            RoundImage.round_id.in_(select(chain.c.id)),
            RoundImage.round_id.not_in(list_tips(search.id)),
            Image.removed_at.is_(None),
        )
        .order_by(RoundImage.round_id.desc(), RoundImage.position)
    )
    return [image_id for image_id in dict.fromkeys(shown) if image_id not in answers]


def _list_likely(
    session: Session, search: Search, made: Round, head: Head, index: VectorIndex
) -> Likely:
    """Images without an answer that the head takes for positives.

    What an open grid shows, anybody's, is among them until it is answered, as on the dashboard.
    """
    left_out = list_left_out(session, search.collection_id, index)
    answers = read_engine_answers(session, search, index, left_out=left_out)
    pool_ids = read_pool(session, made)
    pool_rows = None if pool_ids is None else find_rows(index, pool_ids)
    rows, scores, _ = rank_likely(index, answers, head, MOST_LIKELY + 1, rows=pool_rows)
    best = index.image_ids[rows[scores > 0]].tolist()
    if len(best) <= MOST_LIKELY:
        return Likely(best, best, are_more=False)
    best = best[:MOST_LIKELY]
    if not index.ranks_all:  # to score every image would take too long for a page
        return Likely(best, best, are_more=True)
    allowed = np.arange(index.count) if pool_rows is None else pool_rows
    unanswered = np.setdiff1d(allowed, answers.rows)
    is_likely = index.scores(head.weights, head.bias)[unanswered] > 0
    every_id = index.image_ids[unanswered[is_likely]].tolist()
    return Likely(best, every_id, are_more=False)
