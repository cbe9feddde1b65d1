"""Second opinions: who may be asked, what is chosen, what counts, and what settling changes."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import searching
from app.access import get_asked_review, invite
from app.errors import BadInput, NotFound
from app.indexing import OpenIndexes
from app.reviewing import (
    advise,
    ask_review,
    give_opinion,
    list_asked,
    list_conflicts,
    list_reviewers,
    list_reviews,
    read_review_page,
    report_review,
    settle,
    withdraw_review,
)
from app.settings import Settings
from app.tables import Collection, Image, Person, Review
from tests.factories import make_person
from tests.features.test_together import Pair, open_pair


@pytest.fixture
def pair(session: Session, settings: Settings) -> Pair:
    """Ada has answered four rounds truly: the first tenth of the images are alike."""
    pair = open_pair(session, settings, OpenIndexes(settings), 100)
    herons = set(session.scalars(select(Image.id).order_by(Image.id).limit(10)))
    for _ in range(4):
        shown = pair.shown(pair.ada)
        pair.submit(pair.ada, {one: "yes" if one in herons else "no" for one in shown})
    return pair


@pytest.fixture
def eve(session: Session) -> Person:
    return make_person(session, name="Eve", role="evaluator")


def ask(pair: Pair, who: str = "Eve", kind: str = "sample", size: int = 200) -> Review:
    return ask_review(
        pair.session,
        pair.search,
        person=pair.ada,
        reviewer_name=who,
        kind=kind,
        size=size,
        indexes=pair.indexes,
    )


def give(pair: Pair, review: Review, person: Person, values) -> None:
    give_opinion(pair.session, review, person=person, values=values)


def read_all(pair: Pair, review: Review) -> dict[int, str | None]:
    found: dict[int, str | None] = {}
    pages = read_review_page(pair.session, review, page=1).pages
    for page in range(1, pages + 1):
        shown = read_review_page(pair.session, review, page=page)
        found |= {image.id: value for image, value in shown.images}
    return found


def test_agreement_conflicts_and_settling(pair: Pair, eve: Person):
    session, before = pair.session, pair.answers()
    review = ask(pair)
    assert [one.review.id for one in list_asked(session, eve)] == [review.id]
    images = read_all(pair, review)
    assert set(images) == set(before)
    assert set(images.values()) == {None}  # nothing of the first answers
    yes = [one for one in images if before[one] == "yes"]
    no = [one for one in images if before[one] == "no"]
    second: dict[int, str | None] = dict(before)
    second |= {yes[0]: "no", yes[1]: "unsure", no[0]: "yes", no[1]: "yes"}
    give(pair, review, eve, second)
    give(pair, review, eve, {no[1]: None})  # taken back
    give(pair, review, eve, {no[1]: "no"})
    report = report_review(session, review)
    agreement = report.agreement
    assert (agreement.both_yes, agreement.yes_no) == (len(yes) - 2, 1)
    assert (agreement.no_yes, agreement.both_no) == (1, len(no) - 1)
    assert (agreement.unsure, report.open, report.settled) == (1, 2, [])
    assert {image.id for image in list_conflicts(session, review)} == {yes[0], no[0]}
    assert list_asked(session, eve) == []

    # One is settled as the first said, which changes nothing; the other corrects the search.
    settle(session, pair.search, review, person=pair.ada, values={yes[0]: "yes", no[0]: None})
    assert pair.answers() == before
    settle(session, pair.search, review, person=pair.ada, values={no[0]: "yes"})
    assert pair.answers() == before | {no[0]: "yes"}
    report = report_review(session, review)
    assert report.open == 0
    assert {(one.first, one.second, one.settled) for one in report.settled} == {
        ("yes", "no", "yes"),
        ("no", "yes", "yes"),
    }
    # The measure stays that of the blind answers, and undo takes the correction back.
    assert report.agreement == agreement
    assert pair.undo(pair.ada).kind == "correct"
    assert pair.answers() == before


def test_positives_and_near_misses_are_as_many(pair: Pair, eve: Person):
    images = read_all(pair, ask(pair, kind="positives"))
    answers = pair.answers()
    yes = [one for one in answers if answers[one] == "yes"]
    assert set(yes) <= set(images)
    assert len(images) == 2 * len(yes)
    assert {answers[one] for one in images if one not in yes} == {"no"}


def test_advice_names_the_slip_first_and_can_be_asked_about(pair: Pair, eve: Person):
    yes = [one for one, value in pair.answers().items() if value == "yes"]
    searching.correct_answers(
        pair.session, pair.search, person=pair.ada, values={yes[3]: "no"}, gesture_key=None
    )
    advice = advise(pair.session, pair.search, pair.indexes)
    assert advice.image_ids[0] == yes[3]
    review = ask(pair, kind="advised", size=3)
    assert set(read_all(pair, review)) == set(advice.image_ids[:3])
    # A second, equal answer: other images are worth one more now.
    give(pair, review, eve, {yes[3]: "no"})
    assert advise(pair.session, pair.search, pair.indexes).image_ids[0] != yes[3]
    assert list_reviews(pair.session, pair.search)[0].answered == 1


def test_who_may_be_asked_and_sees_it(pair: Pair, eve: Person, session: Session):
    make_person(session, name="Vic", role="viewer")
    assert [one.name for one in list_reviewers(session, pair.search)] == ["Eve", "Ben"]
    told = {"Vic": "as a viewer", "Ada": "opened this search", "nobody": "nobody of that name"}
    for name, why in told.items():
        with pytest.raises(BadInput, match=why):
            ask(pair, name)
    with pytest.raises(BadInput, match="as a viewer they may look and not answer"):
        invite(session, pair.ada, pair.search, "vic")
    # Of who does not see the collection, no more than of who is not there.
    session.get_one(Collection, pair.search.collection_id).open_to = "listed"
    with pytest.raises(BadInput, match="nobody of that name"):
        invite(session, pair.ada, pair.search, "Vic")
    session.get_one(Collection, pair.search.collection_id).open_to = "everyone"
    # Ben is asked about Ada's answers, not about his own.
    bens = pair.sit_down(pair.ben)
    pair.submit(pair.ben)
    review = ask(pair, "ben")
    assert not set(read_all(pair, review)) & set(bens)
    with pytest.raises(NotFound):
        get_asked_review(session, eve, review.id)
    assert get_asked_review(session, pair.ben, review.id) is review
    strange = {1: "yes"} if 1 not in read_all(pair, review) else {10**9: "yes"}
    with pytest.raises(BadInput):
        give(pair, review, pair.ben, strange)
    withdraw_review(session, review)
    with pytest.raises(NotFound):
        get_asked_review(session, pair.ben, review.id)
    with pytest.raises(NotFound):
        give(pair, review, pair.ben, {})
    invite(session, pair.ada, pair.search, "Eve")
    assert list_asked(session, pair.ben) == []
