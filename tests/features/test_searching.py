"""A search's verbs on real tables: nothing is lost, doubled or forgotten."""

from dataclasses import dataclass

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import searching
from app.access import get_search
from app.adjusting import change_search
from app.answers import read_current_answers
from app.dashboards.moments import MOST_LIKELY, open_moment
from app.errors import BadInput, IndexNotUsable, NotFound, NothingToUndo
from app.history import list_history
from app.indexing import LoadedEmbedders, OpenIndexes
from app.reporting import current_grid, list_searches, upcoming_images
from app.results import list_results
from app.rounds import repeat_round
from app.settings import Settings
from app.steps import may_step, read_steps, redo, undo
from app.tables import Answer, Example, Image, ImageIndex, Person, Round, RoundImage, Search
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person


@dataclass
class Hunt:
    """An open search and a hand on each of its verbs."""

    session: Session
    indexes: OpenIndexes
    person: Person
    images: list[Image]
    search: Search

    def shown(self) -> list[int]:
        return [
            card.image_id for card in current_grid(self.session, self.search, self.person).cards
        ]

    def round_id(self) -> int:
        return current_grid(self.session, self.search, self.person).round_id

    def answers(self) -> dict[int, str]:
        return read_current_answers(self.session, self.search)

    def answer(self, values, *, round_id=None, key=None):
        return searching.record_answers(
            self.session,
            self.search,
            person=self.person,
            round_id=round_id or self.round_id(),
            values=values,
            gesture_key=key,
        )

    def submit(self, values=None, *, rest_are_no=True, round_id=None, key=None):
        return searching.submit_answers(
            self.session,
            self.search,
            person=self.person,
            round_id=round_id or self.round_id(),
            values=values or {},
            rest_are_no=rest_are_no,
            gesture_key=key,
            indexes=self.indexes,
        )

    def undo(self, key=None):
        return undo(self.session, self.search, person=self.person, gesture_key=key)

    def redo(self, key=None):
        return redo(self.session, self.search, person=self.person, gesture_key=key)


@pytest.fixture
def hunt(session: Session, settings: Settings) -> Hunt:
    person = make_person(session)
    collection = make_collection(session)
    images = make_images(session, collection, 100)
    make_index(session, settings, images)
    indexes = OpenIndexes(settings)
    search = searching.open_search(
        session,
        person=person,
        collection_id=collection.id,
        target_name="Grey heron",
        strategy="pf-ma",
        round_size=6,
        image_ids=[images[0].id],
        photo_ids=[],
        indexes=indexes,
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
    )
    return Hunt(session, indexes, person, images, search)


def test_first_round_is_nearest_to_the_example_which_counts_as_found(hunt):
    grid = current_grid(hunt.session, hunt.search, hunt.person)
    alike = {image.id for image in hunt.images[1:10]}
    assert len(grid.cards) == 6
    assert {card.image_id for card in grid.cards} <= alike
    assert {card.reason for card in grid.cards} == {"opening"}
    assert hunt.answers() == {hunt.images[0].id: "yes"}
    assert (grid.found, grid.number, grid.strip) == (1, 1, [])


def test_half_given_answers_are_there_when_the_page_is_opened_again(hunt):
    first, second, third, *_ = hunt.shown()
    hunt.answer({first: "yes", second: "no"})
    hunt.answer({third: "unsure"})
    hunt.answer({second: None})
    by_image = {
        card.image_id: card.answer
        for card in current_grid(hunt.session, hunt.search, hunt.person).cards
    }
    assert by_image[first] == "yes"
    assert by_image[second] is None
    assert by_image[third] == "unsure"


def test_repeated_gesture_changes_nothing(hunt):
    first, *_ = hunt.shown()
    hunt.answer({first: "yes"}, key="one")
    hunt.answer({first: "no"}, key="two")
    hunt.answer({first: "yes"}, key="one")  # the network sent the first request again
    assert hunt.answers()[first] == "no"


def test_submit_proposes_new_images_and_rest_are_no_fills_only_the_open_ones(hunt):
    shown = hunt.shown()
    hunt.answer({shown[0]: "yes", shown[1]: "unsure"})
    assert hunt.submit({shown[2]: "yes"}).already is False
    answers = hunt.answers()
    assert [answers[image_id] for image_id in shown] == ["yes", "unsure", "yes", *["no"] * 3]
    assert not set(hunt.shown()) & set(shown)
    grid = current_grid(hunt.session, hunt.search, hunt.person)
    assert grid.rest_are_no is True
    (tally,) = grid.strip
    assert (tally.number, tally.yes, tally.no, tally.unsure, tally.open) == (1, 2, 3, 1, 0)


def test_images_left_for_later_do_not_come_straight_back(hunt):
    shown = hunt.shown()
    hunt.submit({shown[0]: "yes"}, rest_are_no=False)
    later = shown[1:]
    assert set(hunt.answers()) == {hunt.images[0].id, shown[0]}
    seen = []
    for _ in range(16):
        seen += hunt.shown()
        hunt.submit(dict.fromkeys(hunt.shown(), "no"))
    assert not set(later) & set(seen[:-6])
    assert set(later) <= set(seen)  # but at the end, when nothing else is left
    results = list_results(hunt.session, hunt.search, show="open", page=1, indexes=hunt.indexes)
    assert results.total == 0


def test_double_submit_makes_one_round(hunt):
    round_id = hunt.round_id()
    hunt.submit(round_id=round_id, key="a")
    second = hunt.round_id()
    assert hunt.submit(round_id=round_id, key="a").already is True
    assert hunt.submit(round_id=round_id, key="b").already is True
    assert hunt.round_id() == second
    assert hunt.session.scalar(select(func.count(Round.id))) == 2


def test_old_tab_corrects_and_never_answers_the_new_round(hunt):
    shown, round_id = hunt.shown(), hunt.round_id()
    hunt.submit({shown[0]: "no"})
    new = hunt.round_id()
    recorded = hunt.answer({shown[0]: "yes"}, round_id=round_id)
    assert recorded.stale is True
    assert hunt.answers()[shown[0]] == "yes"
    assert hunt.submit({shown[1]: "unsure"}, round_id=round_id).already is True
    assert hunt.answers()[shown[1]] == "unsure"
    assert hunt.round_id() == new


def test_undo_goes_back_across_submits_and_redo_returns_to_the_same_grid(hunt):
    grids, states = [hunt.shown()], [hunt.answers()]
    for _ in range(3):
        hunt.answer({hunt.shown()[0]: "yes"})
        states.append(hunt.answers())
        hunt.submit()
        grids.append(hunt.shown())
        states.append(hunt.answers())
    for state in reversed(states[:-1]):
        hunt.undo()
        assert hunt.answers() == state
    assert hunt.shown() == grids[0]
    with pytest.raises(NothingToUndo):
        hunt.undo()
    for state in states[1:]:
        hunt.redo()
        assert hunt.answers() == state
    assert hunt.shown() == grids[-1]
    with pytest.raises(NothingToUndo):
        hunt.redo()


def test_other_answer_after_undo_opens_another_branch_and_keeps_the_history(hunt):
    shown = hunt.shown()
    hunt.submit(dict.fromkeys(shown, "yes"))
    first_branch = hunt.round_id()
    events = hunt.session.scalar(select(func.count(Answer.id)))
    hunt.undo()
    assert hunt.shown() == shown
    hunt.submit(dict.fromkeys(shown, "no"))
    assert hunt.round_id() != first_branch
    assert current_grid(hunt.session, hunt.search, hunt.person).number == 2
    assert hunt.session.get(Round, first_branch) is not None
    assert hunt.session.scalar(select(func.count(Answer.id))) == events + 6
    with pytest.raises(NothingToUndo):
        hunt.redo()
    history = list_history(hunt.session, hunt.search, page=1)
    assert [(event.kind, event.taken_back) for event in history.events] == [
        ("submit", False),
        ("answer", False),
        ("undo", False),
        ("submit", True),
        ("answer", False),
        ("example", False),
    ]


def test_history_says_what_was_taken_back_and_done_again(hunt):
    shown = hunt.shown()
    hunt.answer({shown[0]: "yes"})
    hunt.undo()
    hunt.redo()
    hunt.answer({shown[1]: "no", shown[2]: "no"})
    hunt.undo()
    hunt.submit({})
    hunt.undo()
    hunt.redo()
    events = list_history(hunt.session, hunt.search, page=1).events
    assert [one.sentence for one in events if one.kind in ("undo", "redo")] == [
        "Did again the submit of round 1",
        "Took back the submit of round 1",
        "Took back 2 answers in round 1",
        "Did again the answer “yes” in round 1",
        "Took back the answer “yes” in round 1",
    ]
    assert [image_id for image_id, _ in events[-3].images] == [shown[0]]


def test_history_tells_answers_that_follow_each_other_as_one(hunt):
    """Until one of the images is answered again: what it was before stays to be seen."""
    first, second, third, fourth, *_ = hunt.shown()
    hunt.answer({first: "yes"})
    hunt.answer({second: "no"})
    hunt.answer({first: "no"})
    hunt.answer({third: "unsure"})
    hunt.answer({fourth: "yes"})
    hunt.undo()
    hunt.submit({})
    events = list_history(hunt.session, hunt.search, page=1).events
    assert [(one.sentence, one.images, one.taken_back) for one in events[2:5]] == [
        ("Answered “yes” in round 1", [(fourth, "yes")], True),
        (
            "Answered 3 images in round 1: 2 no, 1 unsure",
            [(second, "no"), (first, "no"), (third, "unsure")],
            False,
        ),
        ("Answered “yes” in round 1", [(first, "yes")], False),
    ]


def test_undoing_a_submit_leaves_the_answers_sent_with_it(hunt):
    """Without scripts a grid's answers come with its submit: one press must not lose them all."""
    shown = hunt.shown()
    before = hunt.answers()
    hunt.submit({shown[0]: "yes", shown[1]: "unsure"}, rest_are_no=True)
    hunt.undo()
    assert hunt.shown() == shown
    assert hunt.answers() == before | {shown[0]: "yes", shown[1]: "unsure"}
    hunt.undo()
    assert hunt.answers() == before


def test_repeated_undo_takes_back_one_step(hunt):
    first, second, *_ = hunt.shown()
    hunt.answer({first: "yes"})
    hunt.answer({second: "yes"})
    hunt.undo(key="z")
    assert hunt.undo(key="z") is None
    assert hunt.answers().get(first) == "yes"
    assert second not in hunt.answers()


def test_every_stored_round_is_proposed_again_image_for_image(hunt):
    """The contract of architecture.md: live equals replay, whatever was undone or corrected."""
    for number in range(6):
        shown = hunt.shown()
        hunt.answer({shown[0]: "yes", shown[1]: "unsure"})
        if number == 2:
            hunt.submit()
            hunt.undo()
            hunt.answer({shown[2]: "yes"})
        if number == 4:
            searching.correct_answers(
                hunt.session,
                hunt.search,
                person=hunt.person,
                values={hunt.images[0].id: "no"},
                gesture_key=None,
            )
            change_search(
                hunt.session,
                hunt.search,
                target_name="Heron",
                strategy="random",
                round_size=7,
                no_reasons=[],
                learns_from_poor=False,
            )
        hunt.submit(rest_are_no=number % 2 == 0)
    rounds = hunt.session.scalars(select(Round).order_by(Round.id)).all()
    assert len(rounds) == 8
    for made in rounds:
        stored = hunt.session.scalars(
            select(RoundImage).filter_by(round_id=made.id).order_by(RoundImage.position)
        ).all()
        again = repeat_round(hunt.session, made, hunt.indexes)
        index = hunt.indexes.get(hunt.session.get_one(ImageIndex, made.index_id))
        assert index.image_ids[again.rows].tolist() == [place.image_id for place in stored]
        assert again.scores.tolist() == pytest.approx([place.score for place in stored], abs=1e-6)
        if made.head_bias is not None:
            assert again.head.bias == pytest.approx(made.head_bias)


def test_search_goes_on_when_an_example_is_not_in_the_newest_index(hunt, settings):
    other = hunt.images[1]
    hunt.session.add(Example(search_id=hunt.search.id, image_id=other.id))
    make_index(hunt.session, settings, hunt.images[1:])
    hunt.submit()
    assert len(hunt.shown()) == 6
    assert hunt.images[0].id not in hunt.shown()

    make_index(hunt.session, settings, hunt.images[2:])
    with pytest.raises(IndexNotUsable, match="your answers are safe"):
        hunt.submit()


def test_grid_is_empty_when_every_image_is_answered(hunt):
    for _ in range(17):
        hunt.submit()
    assert len(hunt.answers()) == 100
    grid = current_grid(hunt.session, hunt.search, hunt.person)
    assert grid.cards == []
    hunt.undo()
    assert len(hunt.shown()) == 3


def test_upcoming_images_are_those_of_the_next_grid(hunt):
    hunt.submit({hunt.shown()[0]: "yes"})
    shown = hunt.shown()
    hunt.answer(dict.fromkeys(shown, "no"))
    upcoming = upcoming_images(hunt.session, hunt.search, hunt.person, hunt.indexes)
    hunt.submit()
    assert upcoming == hunt.shown()


def test_results_and_summary_count_what_stands(hunt):
    shown = hunt.shown()
    hunt.submit({shown[0]: "yes", shown[1]: "unsure", shown[2]: None}, rest_are_no=True)
    page = list_results(hunt.session, hunt.search, show="yes", page=1, indexes=hunt.indexes)
    assert [card.image_id for card in page.cards] == [shown[0], hunt.images[0].id]
    assert page.counts["no"] == 4
    likely = list_results(hunt.session, hunt.search, show="likely", page=1, indexes=hunt.indexes)
    probabilities = [card.probability for card in likely.cards]
    assert probabilities == sorted(probabilities, reverse=True)
    assert not {card.image_id for card in likely.cards} & set(hunt.answers())
    # An image that is shown and not answered is among them, and the dashboard counts the same.
    moment = open_moment(hunt.session, hunt.search, hunt.indexes, None)
    told = moment.index.image_ids[moment.list_likely(MOST_LIKELY)].tolist()
    assert [card.image_id for card in likely.cards] == told
    in_grid = set(hunt.shown()) & set(told)
    assert in_grid and likely.counts["likely"] == (moment.scores > 0).sum() == len(told)
    hunt.answer({min(in_grid): "no"})
    likely = list_results(hunt.session, hunt.search, show="likely", page=1, indexes=hunt.indexes)
    assert [card.image_id for card in likely.cards] == [i for i in told if i != min(in_grid)]
    hunt.answer({min(in_grid): None})
    own = hunt.search.collection_id
    (summary,) = list_searches(hunt.session, hunt.person, collection_id=own)
    assert list_searches(hunt.session, hunt.person) == [summary]
    assert list_searches(hunt.session, hunt.person, collection_id=own + 1) == []
    assert (summary.found, summary.answered, summary.rounds) == (2, 7, 1)


def test_likely_images_beyond_those_shown_are_counted(hunt, monkeypatch):
    shown = hunt.shown()
    hunt.submit(dict.fromkeys(shown[:3], "yes"))

    def look():
        return list_results(hunt.session, hunt.search, show="likely", page=1, indexes=hunt.indexes)

    every = look()
    assert every.total == every.counts["likely"] > 2
    monkeypatch.setattr("app.results.MOST_LIKELY", 2)
    first = look()
    assert (first.total, first.counts["likely"]) == (2, every.total)
    assert not first.likely_are_more
    assert [one.image_id for one in first.cards] == [one.image_id for one in every.cards[:2]]


def test_answers_can_be_corrected_while_the_index_is_prepared_anew(hunt):
    first, *_ = hunt.shown()
    for row in hunt.session.scalars(select(ImageIndex)):
        row.state = "failed"
    searching.correct_answers(
        hunt.session, hunt.search, person=hunt.person, values={first: "yes"}, gesture_key=None
    )
    assert hunt.answers()[first] == "yes"


def test_what_cannot_be_used_is_refused_by_name(hunt):
    first, *_ = hunt.shown()
    outside = next(image.id for image in hunt.images if image.id not in hunt.shown())
    with pytest.raises(BadInput, match="maybe"):
        hunt.answer({first: "maybe"})
    with pytest.raises(BadInput, match="not in this grid"):
        hunt.answer({outside: "yes"})
    with pytest.raises(NotFound):
        hunt.answer({first: "yes"}, round_id=10**9)
    with pytest.raises(NotFound):
        get_search(hunt.session, make_person(hunt.session, name="other"), hunt.search.id)
    assert set(hunt.answers()) == {hunt.images[0].id}


def test_form_sent_twice_opens_one_search(hunt, settings):
    def open_again(name: str, *examples: int, **more: object) -> Search:
        return searching.open_search(
            hunt.session,
            person=hunt.person,
            collection_id=hunt.search.collection_id,
            target_name=name,
            image_ids=[hunt.images[one].id for one in examples or (0, 1)],
            photo_ids=[],
            **more,
            indexes=hunt.indexes,
            embedders=LoadedEmbedders(settings, Readers(settings)),
            settings=settings,
            opening_key="a-form",
        )

    first = open_again("Egret")
    assert open_again("Egret ").id == first.id
    assert open_again("Egret", 1, 0).id == first.id
    other = open_again("Bittern")  # the same page, filled in again after going back
    assert other.id != first.id
    # Two tabs of one address, filled in each in its own way: no choice is lost without a word.
    others = [
        open_again("Egret", 2),
        open_again("Egret", strategy="pf-ma"),
        open_again("Egret", round_size=24),
    ]
    assert len({first.id, other.id, *(one.id for one in others)}) == 5
    assert hunt.session.scalar(select(func.count(Search.id))) == 6


def test_what_can_be_taken_back_is_counted_as_it_is_walked(hunt):
    rng = np.random.default_rng(0)
    seen = set()
    for number in range(60):
        done, undone = read_steps(hunt.session, hunt.search, hunt.person)
        counted = may_step(hunt.session, hunt.search, hunt.person)
        assert counted == (bool(done), bool(undone)), number
        seen.add(counted)
        luck = rng.random()
        if luck < 0.4 and done:
            hunt.undo()
        elif luck < 0.65 and undone:
            hunt.redo()
        elif luck < 0.9:
            hunt.answer({hunt.shown()[0]: str(rng.choice(["yes", "no", "unsure"]))})
        else:
            hunt.submit()
    assert seen == {(False, False), (True, False), (True, True), (False, True)}
