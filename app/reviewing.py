"""Second opinions: ask for one, give it blind, see how far both agree, settle what they don't.

The first answers are kept with the review as they stood when it was asked for. The second person
is shown images alone. Conflicts are settled without seeing who said what; what is settled corrects
the search.
"""

import secrets
from dataclasses import dataclass
from math import ceil

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session, joinedload

from app.access import explain_unfit, is_asked, list_invitable, list_members
from app.answers import VALUES, read_current_answers
from app.audit import note
from app.engine.agreement import Agreement, guess_unseen, measure_agreement, weigh_answers
from app.engine.index import VectorIndex
from app.engine.numerals import spaced
from app.errors import BadInput, NotFound
from app.indexing import OpenIndexes
from app.premises import read_head
from app.searching import correct_answers
from app.tables import (
    REVIEW_KINDS,
    Action,
    Answer,
    Image,
    ImageIndex,
    Person,
    Review,
    ReviewAnswer,
    ReviewImage,
    Round,
    Search,
)

IMAGES_PER_PAGE = 12
SIZES = range(1, 1_001)
MOST_ADVISED = 12  # shown with the advice
AGREEMENT_BEFORE = (9, 10)  # 9 of 10 equal, until enough images have two answers

SureValues = dict[int, str]  # image id -> yes, no or unsure


@dataclass(frozen=True)
class Progress:
    """A second opinion and how far it is."""

    review: Review
    total: int
    answered: int
    conflicts: int  # not settled yet


@dataclass(frozen=True)
class ReviewPage:
    """Images to give a second opinion on, with what one said of them before."""

    images: list[tuple[Image, str | None]]
    page: int
    pages: int
    answered: int
    total: int


@dataclass(frozen=True)
class Pair:
    """One image with both answers, and what it was settled to."""

    image: Image
    first: str
    second: str
    settled: str | None


@dataclass(frozen=True)
class Report:
    """What came of a second opinion."""

    review: Review
    agreement: Agreement
    total: int
    open: int  # conflicts to settle
    settled: list[Pair]  # conflicts that were


@dataclass(frozen=True)
class Advice:
    """Images whose answer is worth a second one, most first; a sentence where there are none."""

    image_ids: list[int]
    sentence: str | None


def list_reviewers(session: Session, search: Search) -> list[Person]:
    """Who could give a second opinion: those who don't answer in the search yet come first."""
    members = [one.person for one in list_members(session, search) if one.person.role != "viewer"]
    return list_invitable(session, search) + members


def ask_review(
    session: Session,
    search: Search,
    *,
    person: Person,
    reviewer_name: str,
    kind: str,
    size: int,
    indexes: OpenIndexes,
) -> Review:
    """Ask for a second opinion on a sample of `size` answered images, on all positives and as many
    negatives nearest to them, or on the `size` images that are worth it most.
    """
    named = {one.name.lower(): one for one in list_reviewers(session, search)}
    reviewer = named.get(" ".join(reviewer_name.split()).lower())
    if reviewer is None:
        name = " ".join(reviewer_name.split())
        if name.lower() == search.owner.name.lower():
            raise BadInput(f"{name} opened this search: a second opinion is somebody else's.")
        raise BadInput(f"“{name}” can't be asked: {explain_unfit(session, search, name)}")
    if kind not in REVIEW_KINDS:
        raise BadInput("Choose which images the second opinion is on.")
    if size not in SIZES:
        raise BadInput(f"A second opinion is on {SIZES[0]} to {spaced(SIZES[-1])} images.")
    seed = secrets.randbelow(2**31)
    first = _read_first(session, search, without=reviewer)
    image_ids = _choose(session, search, first, kind, size, seed, indexes)
    if not image_ids:
        raise BadInput(
            f"There is no answer yet that {reviewer.name} could give a second opinion on. Answers "
            "of their own don't count."
        )
    review = Review(
        search_id=search.id,
        reviewer_id=reviewer.id,
        asked_by_id=person.id,
        kind=kind,
        seed=seed,
    )
    session.add(review)
    session.flush()
    # In an order that says nothing of the first answers.
    order = np.random.default_rng(seed).permutation(len(image_ids))
    for position, place in enumerate(order.tolist()):
        value, author = first[image_ids[place]]
        session.add(
            ReviewImage(
                review_id=review.id,
                image_id=image_ids[place],
                position=position,
                first_value=value,
                first_person_id=author,
            )
        )
    what = f"Asked {reviewer.name} for a second opinion on “{search.target_name}”"
    note(session, person, "share", what, search=search)
    return review


def withdraw_review(session: Session, review: Review) -> None:
    """Ask no more; what was answered stays."""
    review.withdrawn_at = review.withdrawn_at or func.now()
    session.flush()


def get_review(session: Session, search: Search, review_id: int) -> Review:
    """A second opinion of the search."""
    review = session.get(Review, review_id)
    if review is None or review.search_id != search.id:
        raise NotFound("There is no such second opinion in this search.")
    return review


def list_asked(session: Session, person: Person) -> list[Progress]:
    """The second opinions that somebody is asked for and has not given in full."""
    query = select(Review).where(is_asked(person)).order_by(Review.id)
    every = [_measure_progress(session, review) for review in session.scalars(query)]
    return [one for one in every if one.answered < one.total]


def list_reviews(session: Session, search: Search) -> list[Progress]:
    """All second opinions of a search, the newest first."""
    query = select(Review).filter_by(search_id=search.id).order_by(Review.id.desc())
    return [_measure_progress(session, review) for review in session.scalars(query)]


def read_review_page(session: Session, review: Review, *, page: int | None) -> ReviewPage:
    """A page of the images; without a number the first that has one without an answer."""
    images = _list_images(session, review)
    given = _read_given(session, review, settles=False)
    pages = max(1, ceil(len(images) / IMAGES_PER_PAGE))
    if page is None:
        missing = (at for at, one in enumerate(images) if one.image_id not in given)
        page = next(missing, len(images) - 1) // IMAGES_PER_PAGE + 1
    page = min(max(page, 1), pages)
    shown = images[(page - 1) * IMAGES_PER_PAGE : page * IMAGES_PER_PAGE]
    return ReviewPage(
        images=[(one.image, given.get(one.image_id)) for one in shown],
        page=page,
        pages=pages,
        answered=sum(one.image_id in given for one in images),
        total=len(images),
    )


def give_opinion(
    session: Session, review: Review, *, person: Person, values: dict[int, str | None]
) -> None:
    """Keep the second answers; None takes one back."""
    session.refresh(review, with_for_update={"of": Review})
    if review.withdrawn_at is not None:
        raise NotFound("This second opinion is not asked for any more.")
    _check(values, {one.image_id for one in _list_images(session, review)})
    _add(session, review, person, values, settles=False)


def report_review(session: Session, review: Review) -> Report:
    """How far both agree on what has two answers, and the conflicts."""
    pairs = _list_pairs(session, review)
    conflicts = [pair for pair in pairs if _is_conflict(pair)]
    return Report(
        review=review,
        agreement=measure_agreement(
            np.array([VALUES[pair.first] for pair in pairs], np.int8),
            np.array([VALUES[pair.second] for pair in pairs], np.int8),
        ),
        total=len(_list_images(session, review)),
        open=sum(pair.settled is None for pair in conflicts),
        settled=[pair for pair in conflicts if pair.settled is not None],
    )


def list_conflicts(session: Session, review: Review) -> list[Image]:
    """The images to settle, without what was said of them."""
    return [
        pair.image
        for pair in _list_pairs(session, review)
        if _is_conflict(pair) and pair.settled is None
    ]


def settle(
    session: Session,
    search: Search,
    review: Review,
    *,
    person: Person,
    values: dict[int, str | None],
) -> int:
    """Decide conflicts; where the search says otherwise it is corrected.

    Returns how many other images of the same events were corrected along.
    """
    session.refresh(review, with_for_update={"of": Review})
    _check(values, {image.id for image in list_conflicts(session, review)})
    given = {image_id: value for image_id, value in values.items() if value is not None}
    _add(session, review, person, dict(given), settles=True)
    standing = read_current_answers(session, search, image_ids=list(given))
    changed = {one: value for one, value in given.items() if standing.get(one) != value}
    if not changed:
        return 0
    along = correct_answers(session, search, person=person, values=dict(changed), gesture_key=None)
    return sum(map(len, along.values()))


def advise(session: Session, search: Search, indexes: OpenIndexes) -> Advice:
    """Which images are worth a second answer most: those the head and the answers say least of."""
    ranked, sentence = _rank_advised(session, search, indexes)
    return Advice(ranked[:MOST_ADVISED], sentence)


def _choose(
    session: Session,
    search: Search,
    first: dict[int, tuple[str, int]],
    kind: str,
    size: int,
    seed: int,
    indexes: OpenIndexes,
) -> list[int]:
    image_ids = sorted(first)
    if kind == "sample":
        picked = np.random.default_rng(seed).permutation(len(image_ids))[:size]
        return [image_ids[place] for place in picked.tolist()]
    if kind == "advised":
        ranked, _ = _rank_advised(session, search, indexes)
        return [image_id for image_id in ranked if image_id in first][:size]
    positives = [one for one in image_ids if first[one][0] == "yes"]
    negatives = [one for one in image_ids if first[one][0] == "no"]
    made, index = _open_index(session, search, indexes)
    head = read_head(made)
    held = np.array(negatives, np.int64)
    held = held[index.holds(held)]
    if head is None or not len(held):
        return positives
    scores = index.vectors[index.rows_of(held)] @ head.weights
    nearest = held[np.argsort(-scores, kind="stable")][: max(len(positives), 1)]
    return [*positives, *nearest.tolist()]


def _rank_advised(
    session: Session, search: Search, indexes: OpenIndexes
) -> tuple[list[int], str | None]:
    """All images answered yes or no in the search's index, the one worth it most first."""
    _, index = _open_index(session, search, indexes)
    answers = {
        image_id: value
        for image_id, value in read_current_answers(session, search).items()
        if value != "unsure"
    }
    image_ids = np.array(sorted(answers), np.int64)
    image_ids = image_ids[index.holds(image_ids)]
    values = np.array([VALUES[answers[one]] for one in image_ids.tolist()], np.int8)
    vectors = index.vectors[index.rows_of(image_ids)]
    rng = np.random.default_rng(search.seed)
    chances = guess_unseen(vectors, values, rng=rng) if len(values) else None
    if chances is None:
        return [], "There is advice from two images answered yes and two answered no."
    yes, no = (values == VALUES["yes"]) * 1, (values == VALUES["no"]) * 1
    equal, compared = AGREEMENT_BEFORE
    place_of = {image_id: place for place, image_id in enumerate(image_ids.tolist())}
    for review in session.scalars(select(Review).filter_by(search_id=search.id)):
        for pair in _list_pairs(session, review):
            place = place_of.get(pair.image.id)
            if place is None or "unsure" in (pair.first, pair.second):
                continue
            equal, compared = equal + (pair.first == pair.second), compared + 1
            if pair.settled is None:  # a settled image's answer is not one person's any more
                (yes if pair.second == "yes" else no)[place] += 1
            else:
                (yes if pair.settled == "yes" else no)[place] += 2
    sure = weigh_answers(chances, yes, no, agreement=equal / compared)
    ranked: list[int] = image_ids[np.argsort(sure, kind="stable")].tolist()
    return ranked, None


def _open_index(
    session: Session, search: Search, indexes: OpenIndexes
) -> tuple[Round, VectorIndex]:
    made = session.get_one(Round, search.current_round_id)
    return made, indexes.get(session.get_one(ImageIndex, made.index_id))


def _read_first(session: Session, search: Search, *, without: Person) -> dict[int, tuple[str, int]]:
    """The answers that stand with their authors; those of one person are left out.

    So are answers that came along with that on another image of an event: nobody looked at these.
    """
    rows = session.execute(
        select(Answer.image_id, Answer.value, Action.person_id, Answer.with_image_id)
        .join(Action, Action.id == Answer.action_id)
        .join(Image, Image.id == Answer.image_id)
        .where(Answer.search_id == search.id, Image.removed_at.is_(None))
        .order_by(Answer.image_id, Answer.id.desc())
        .ext(distinct_on(Answer.image_id))
    )
    return {
        image_id: (value, author)
        for image_id, value, author, along in rows
        if value != "cleared" and author != without.id and along is None
    }


def _list_images(session: Session, review: Review) -> list[ReviewImage]:
    query = (
        select(ReviewImage)
        .join(Image, Image.id == ReviewImage.image_id)
        .where(ReviewImage.review_id == review.id, Image.removed_at.is_(None))
        .order_by(ReviewImage.position)
        .options(joinedload(ReviewImage.image))
    )
    return list(session.scalars(query))


def _read_given(session: Session, review: Review, *, settles: bool) -> SureValues:
    """The newest answer of each image: the second person's, or what was settled."""
    rows = session.execute(
        select(ReviewAnswer.image_id, ReviewAnswer.value)
        .where(ReviewAnswer.review_id == review.id, ReviewAnswer.settles == settles)
        .order_by(ReviewAnswer.image_id, ReviewAnswer.id.desc())
        .ext(distinct_on(ReviewAnswer.image_id))
    )
    return {image_id: value for image_id, value in rows if value != "cleared"}


def _list_pairs(session: Session, review: Review) -> list[Pair]:
    second = _read_given(session, review, settles=False)
    settled = _read_given(session, review, settles=True)
    return [
        Pair(one.image, one.first_value, second[one.image_id], settled.get(one.image_id))
        for one in _list_images(session, review)
        if one.image_id in second
    ]


def _is_conflict(pair: Pair) -> bool:
    """Yes against no; who is unsure contradicts nobody."""
    return {pair.first, pair.second} == {"yes", "no"}


def _measure_progress(session: Session, review: Review) -> Progress:
    pairs = _list_pairs(session, review)
    conflicts = sum(_is_conflict(pair) and pair.settled is None for pair in pairs)
    return Progress(review, len(_list_images(session, review)), len(pairs), conflicts)


def _check(values: dict[int, str | None], known: set[int]) -> None:
    if not known.issuperset(values):
        raise BadInput("An answer names an image that is not asked about. Reload the page.")
    if not all(value is None or value in VALUES for value in values.values()):
        raise BadInput("An answer is yes, no or unsure.")


def _add(
    session: Session,
    review: Review,
    person: Person,
    values: dict[int, str | None],
    *,
    settles: bool,
) -> None:
    standing = _read_given(session, review, settles=settles)
    session.add_all(
        ReviewAnswer(
            review_id=review.id,
            image_id=image_id,
            person_id=person.id,
            value=value or "cleared",
            settles=settles,
        )
        for image_id, value in values.items()
        if standing.get(image_id) != value
    )
    session.flush()
