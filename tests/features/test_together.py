"""Several people in one search: never the same image, no lost answer, every round repeats."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import searching
from app.access import invite, remove_member
from app.accounts import close_account
from app.answers import read_current_answers
from app.dashboards.moments import open_moment
from app.database import Database
from app.history import list_history
from app.indexing import LoadedEmbedders, OpenIndexes
from app.reporting import current_grid, list_searches, upcoming_images
from app.rounds import repeat_round
from app.seats import leave, list_here
from app.settings import Settings
from app.steps import redo, undo
from app.tables import Action, Answer, ImageIndex, Lease, Person, Round, RoundImage, Search, Seat
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person

ROUNDS = 20


@dataclass
class Pair:
    """A search of ada's that ben answers in too, and a hand on its verbs."""

    session: Session
    indexes: OpenIndexes
    search: Search
    ada: Person
    ben: Person

    def sit_down(self, person: Person, visit: str | None = None) -> list[int]:
        searching.sit_down(
            self.session, self.search, person=person, visit=visit, indexes=self.indexes
        )
        return self.shown(person)

    def shown(self, person: Person) -> list[int]:
        return [card.image_id for card in current_grid(self.session, self.search, person).cards]

    def answer(self, person: Person, values):
        return searching.record_answers(
            self.session,
            self.search,
            person=person,
            round_id=current_grid(self.session, self.search, person).round_id,
            values=values,
            gesture_key=None,
        )

    def submit(self, person: Person, values=None, *, rest_are_no: bool = True):
        return searching.submit_answers(
            self.session,
            self.search,
            person=person,
            round_id=current_grid(self.session, self.search, person).round_id,
            values=values or {},
            rest_are_no=rest_are_no,
            gesture_key=None,
            indexes=self.indexes,
        )

    def undo(self, person: Person):
        return undo(self.session, self.search, person=person, gesture_key=None)

    def answers(self) -> dict[int, str]:
        return read_current_answers(self.session, self.search)

    def go_silent(self, person: Person) -> None:
        self.session.execute(
            update(Seat)
            .where(Seat.person_id == person.id)
            .values(here_until=func.now() - timedelta(seconds=1))
        )


def open_pair(session: Session, settings: Settings, indexes: OpenIndexes, count: int) -> Pair:
    ada, ben = make_person(session, name="Ada"), make_person(session, name="Ben", role="ecologist")
    collection = make_collection(session)
    images = make_images(session, collection, count)
    make_index(session, settings, images)
    search = searching.open_search(
        session,
        person=ada,
        collection_id=collection.id,
        target_name="Grey heron",
        round_size=6,
        image_ids=[images[0].id],
        photo_ids=[],
        indexes=indexes,
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
        seed=3,
    )
    invite(session, ada, search, "Ben")
    return Pair(session, indexes, search, ada, ben)


@pytest.fixture
def pair(session: Session, settings: Settings) -> Pair:
    return open_pair(session, settings, OpenIndexes(settings), 100)


def assert_rounds_repeat(session: Session, search: Search, indexes: OpenIndexes) -> int:
    rounds = session.scalars(select(Round).filter_by(search_id=search.id)).all()
    for made in rounds:
        stored = session.scalars(
            select(RoundImage.image_id).filter_by(round_id=made.id).order_by(RoundImage.position)
        ).all()
        again = repeat_round(session, made, indexes)
        held = indexes.get(session.get_one(ImageIndex, made.index_id)).image_ids
        assert held[again.rows].tolist() == list(stored), made.id
    return len(rounds)


def test_two_at_once_for_twenty_rounds_each(own_database: Database, settings: Settings):
    """From threads: never the same image, no answer lost, and every stored round repeats."""
    indexes = OpenIndexes(settings)
    with own_database.session() as session:
        pair = open_pair(session, settings, indexes, 400)
        search_id, people = pair.search.id, {"ada": pair.ada.id, "ben": pair.ben.id}
        herons = set(session.scalars(select(RoundImage.image_id)).all()[:3])
    start = Barrier(2)

    def play(person_id: int) -> tuple[list[int], dict[int, str]]:
        seen: list[int] = []
        said: dict[int, str] = {}
        start.wait()
        for number in range(ROUNDS):
            with own_database.session() as session:
                search = session.get_one(Search, search_id)
                person = session.get_one(Person, person_id)
                searching.sit_down(session, search, person=person, visit=None, indexes=indexes)
                grid = current_grid(session, search, person)
            shown = [card.image_id for card in grid.cards]
            assert len(shown) == 6
            seen += shown
            values = {one: "yes" if one in herons or one % 17 == 0 else "no" for one in shown}
            said |= values
            with own_database.session() as session:
                search = session.get_one(Search, search_id)
                person = session.get_one(Person, person_id)
                if number % 2:  # half of them one by one first
                    searching.record_answers(
                        session,
                        search,
                        person=person,
                        round_id=grid.round_id,
                        values=dict(list(values.items())[:2]),
                        gesture_key=None,
                    )
            with own_database.session() as session:
                done = searching.submit_answers(
                    session,
                    session.get_one(Search, search_id),
                    person=session.get_one(Person, person_id),
                    round_id=grid.round_id,
                    values=values,
                    rest_are_no=False,
                    gesture_key=None,
                    indexes=indexes,
                )
                assert done.already is False
        return seen, said

    with ThreadPoolExecutor(2) as pool:
        (ada_saw, ada_said), (ben_saw, ben_said) = pool.map(play, people.values())
    assert len(set(ada_saw)) == len(ada_saw) == len(set(ben_saw)) == len(ben_saw) == 6 * ROUNDS
    assert not set(ada_saw) & set(ben_saw)
    with own_database.session() as session:
        search = session.get_one(Search, search_id)
        answers = read_current_answers(session, search)
        assert {image: answers[image] for image in ada_said | ben_said} == ada_said | ben_said
        authors = dict(
            session.execute(
                select(Answer.image_id, Action.person_id).join(
                    Action, Action.id == Answer.action_id
                )
            ).all()
        )
        assert {authors[image] for image in ben_said} == {people["ben"]}
        assert {authors[image] for image in ada_said} == {people["ada"]}
        assert assert_rounds_repeat(session, search, indexes) == 2 * (ROUNDS + 1)
        leased = session.scalars(select(Round.leased_ids).filter_by(search_id=search_id)).all()
        assert sum(ids is not None for ids in leased) > ROUNDS  # they were at it together
        moment = open_moment(session, search, indexes, None)
        assert moment.rounds_count == 2 * ROUNDS
        assert {one.image_id for one in moment.showings} == set(ada_saw + ben_saw)


def test_a_lone_owner_is_as_ever(pair: Pair):
    remove_member(pair.session, pair.ada, pair.search, pair.ben.id)
    for _ in range(3):
        pair.submit(pair.ada)
    assert pair.session.scalar(select(func.count()).select_from(Lease)) == 0
    rounds = pair.session.scalars(select(Round).order_by(Round.id)).all()
    assert [made.number for made in rounds] == [1, 2, 3, 4]
    assert {made.leased_ids for made in rounds} == {None}


def test_rest_of_a_grid_from_before_the_invitation_counts_as_no(pair: Pair):
    adas = pair.shown(pair.ada)  # Ben is invited and has not come yet
    pair.submit(pair.ada, {adas[0]: "yes"}, rest_are_no=True)
    assert [pair.answers()[one] for one in adas] == ["yes", *["no"] * 5]


def test_undo_takes_back_ones_own_and_leaves_what_others_said(pair: Pair):
    first, *_ = adas = pair.shown(pair.ada)
    bens = pair.sit_down(pair.ben)
    pair.answer(pair.ada, {first: "yes"})
    pair.answer(pair.ben, {bens[0]: "yes"})
    searching.correct_answers(
        pair.session, pair.search, person=pair.ben, values={first: "no"}, gesture_key=None
    )
    pair.submit(pair.ada)
    # Ada takes back her submit and her answer: Ben's word on the same image stays, and his own.
    assert pair.undo(pair.ada).kind == "submit"
    assert pair.shown(pair.ada) == adas
    assert pair.undo(pair.ada).kind == "answer"
    assert pair.answers()[first] == "no"
    assert pair.answers()[bens[0]] == "yes"
    # Ben takes back his correction: what Ada had said is taken back too, so nothing stands.
    assert pair.undo(pair.ben).kind == "correct"
    assert first not in pair.answers()
    redo(pair.session, pair.search, person=pair.ada, gesture_key=None)
    assert pair.answers()[first] == "yes"
    assert pair.shown(pair.ben) == bens
    events = list_history(pair.session, pair.search, page=1).events
    assert {event.who for event in events if event.taken_back} == {"Ada", "Ben"}
    assert_rounds_repeat(pair.session, pair.search, pair.indexes)


def test_images_of_who_left_go_to_others_and_do_not_come_back(pair: Pair):
    adas = pair.sit_down(pair.ada, visit="first")
    bens = pair.sit_down(pair.ben)
    assert not set(adas) & set(bens)
    assert [one.name for one in list_here(pair.session, pair.search)] == ["Ada", "Ben"]
    assert current_grid(pair.session, pair.search, pair.ben).people_here == ["you", "Ada"]
    coming = upcoming_images(pair.session, pair.search, pair.ben, pair.indexes)
    assert not set(coming) & set(adas)
    pair.sit_down(pair.ada, visit="second")
    leave(pair.session, pair.search, pair.ada, "first")  # a page she had left before
    assert not set(upcoming_images(pair.session, pair.search, pair.ben, pair.indexes)) & set(adas)
    leave(pair.session, pair.search, pair.ada, "second")
    assert [one.name for one in list_here(pair.session, pair.search)] == ["Ben"]
    assert current_grid(pair.session, pair.search, pair.ben).people_here == ["only you"]
    assert current_grid(pair.session, pair.search, pair.ada).people_here == ["Ben"]
    pair.submit(pair.ben)
    got = set(pair.shown(pair.ben)) & set(adas)
    assert got
    # She comes back: what Ben is being asked now is his; "the rest are no" is not for it.
    assert set(pair.sit_down(pair.ada)) == set(adas) - got
    grid = current_grid(pair.session, pair.search, pair.ada)
    assert (grid.gone, grid.gone_to) == (len(got), ["Ben"])
    assert searching.stay_here(pair.session, pair.search, person=pair.ada) == set(adas) - got
    pair.submit(pair.ada, rest_are_no=True)
    assert not got & set(pair.answers())
    assert_rounds_repeat(pair.session, pair.search, pair.indexes)


def test_a_grid_of_which_images_went_to_others_is_filled_anew(pair: Pair):
    adas = pair.sit_down(pair.ada)
    pair.sit_down(pair.ben)
    pair.go_silent(pair.ada)
    pair.submit(pair.ben)
    assert set(pair.shown(pair.ben)) & set(adas)
    left = pair.sit_down(pair.ada)
    assert len(left) < len(adas)
    searching.take_detour(
        pair.session,
        pair.search,
        person=pair.ada,
        kind=None,
        gesture_key=None,
        indexes=pair.indexes,
    )
    grid = current_grid(pair.session, pair.search, pair.ada)
    assert (len(grid.cards), grid.gone) == (6, 0)
    assert not set(pair.shown(pair.ada)) & set(pair.shown(pair.ben))
    assert_rounds_repeat(pair.session, pair.search, pair.indexes)


def test_rounds_are_counted_when_they_are_submitted_by_whomever(pair: Pair):
    def count() -> int:
        (summary,) = list_searches(pair.session, pair.ada)
        return summary.rounds

    for _ in range(3):
        pair.submit(pair.ada)
    assert count() == 3
    pair.sit_down(pair.ben)  # a look alone is no round
    assert count() == 3
    pair.submit(pair.ben)
    assert count() == 4
    pair.undo(pair.ada)
    assert count() == 3


def test_that_the_rest_are_no_is_each_persons_own_choice(pair: Pair):
    pair.sit_down(pair.ada)
    pair.submit(pair.ada, rest_are_no=True)
    pair.sit_down(pair.ben)

    def chosen(person: Person) -> bool:
        return current_grid(pair.session, pair.search, person).rest_are_no

    assert chosen(pair.ada) is True
    assert chosen(pair.ben) is False
    pair.submit(pair.ben, rest_are_no=False)
    assert chosen(pair.ada) is True
    # A look at a grid without images says nothing about it.
    searching.submit_answers(
        pair.session,
        pair.search,
        person=pair.ada,
        round_id=current_grid(pair.session, pair.search, pair.ada).round_id,
        values={},
        rest_are_no=False,
        is_chosen=False,
        gesture_key=None,
        indexes=pair.indexes,
    )
    assert chosen(pair.ada) is True


@pytest.mark.parametrize("go", ["silent", "out", "closed"])
def test_silence_being_taken_out_and_a_closed_account_release_images(pair: Pair, go: str):
    adas, bens = pair.sit_down(pair.ada), pair.sit_down(pair.ben)
    leave_by: dict[str, Callable[[], None]] = {
        "silent": lambda: pair.go_silent(pair.ben),
        "out": lambda: remove_member(pair.session, pair.ada, pair.search, pair.ben.id),
        "closed": lambda: close_account(pair.session, pair.ben, by=pair.ada),
    }
    leave_by[go]()
    pair.submit(pair.ada)
    assert set(pair.shown(pair.ada)) & set(bens)
    assert not set(pair.shown(pair.ada)) & set(adas)
    # What he still says in his old tab is kept.
    made = pair.session.get_one(Seat, (pair.search.id, pair.ben.id)).round_id
    if go == "silent":
        pair.answer(pair.ben, {bens[0]: "yes"})
        assert pair.answers()[bens[0]] == "yes"
        assert made is not None


def test_last_images_are_with_others_until_they_leave(session: Session, settings: Settings):
    pair = open_pair(session, settings, OpenIndexes(settings), 13)  # the example, six and six
    adas, bens = pair.sit_down(pair.ada, visit="a"), pair.sit_down(pair.ben)
    assert len(adas) == len(bens) == 6
    pair.submit(pair.ben)
    grid = current_grid(session, pair.search, pair.ben)
    assert (grid.cards, grid.asked_elsewhere) == ([], 6)
    leave(session, pair.search, pair.ada, "a")
    pair.submit(pair.ben)
    assert set(pair.shown(pair.ben)) == set(adas)
    assert_rounds_repeat(session, pair.search, pair.indexes)
