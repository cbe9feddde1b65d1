"""Events of a collection and of its searches: grouped, asked once, answered whole, repeatable."""

import csv
import io
import re
from datetime import datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import delete, func, insert, literal, select, text

from app import events, searching
from app.access import invite
from app.adjusting import change_search
from app.answers import count_along, read_current_answers
from app.dashboards.found import tell_found
from app.dashboards.moments import MOST_LIKELY, open_moment
from app.dashboards.stopping import build_standing, tell_left
from app.dashboards.variety import tell_looks
from app.engine.answers import Value
from app.engine.replay import replay
from app.errors import BadInput
from app.events import Rule, group_by_itself, group_images, read_events
from app.exports.bundles import import_search, repeat_rounds
from app.exports.offers import write_file
from app.history import list_history
from app.indexing import LoadedEmbedders, OpenIndexes
from app.metadata import add_table
from app.reporting import current_grid
from app.results import describe_event, list_results
from app.reviewing import ask_review, give_opinion, settle
from app.rounds import repeat_round
from app.seats import lease, list_own
from app.steps import undo
from app.tables import (
    Answer,
    Collection,
    Deployment,
    Grouping,
    Image,
    Import,
    Lease,
    ReviewImage,
    Round,
    Search,
    Seat,
)
from app.workers import Readers
from tests.contracts.test_bundles import NOW, make_other_collection, write_bundle
from tests.factories import make_collection, make_images, make_index, make_person, make_vectors
from tests.features.test_detours import Hunt

BURST = 4  # images of an event in a `Burst` hunt


class Bursts(Hunt):
    """A search of 200 images in 50 bursts of four; the first five bursts are of the target."""

    def __init__(self, session, settings):
        super().__init__(session, settings)
        for number, image in enumerate(self.images):
            image.sha256 = f"{number:064x}"
            image.captured_at = datetime(2026, 5, 1) + timedelta(
                minutes=10 * (number // BURST), seconds=number % BURST
            )
        session.flush()
        self.group(Rule("bursts", gap_s=60))

    def group(self, rule):
        return group_images(
            self.session,
            self.search.collection_id,
            rule,
            person=self.person,
            indexes=self.indexes,
        )

    def number(self, image_id):
        return next(place for place, one in enumerate(self.images) if one.id == image_id)

    def mates(self, image_id):
        first = BURST * (self.number(image_id) // BURST)
        return [image.id for image in self.images[first : first + BURST]]

    def answer(self, values, alone=()):
        return searching.record_answers(
            self.session,
            self.search,
            person=self.person,
            round_id=self.search.current_round_id,
            values=values,
            alone=alone,
            gesture_key=None,
        )

    def answers(self):
        return read_current_answers(self.session, self.search)

    def rounds(self):
        query = select(Round).filter_by(search_id=self.search.id).order_by(Round.id)
        return list(self.session.scalars(query))

    def check_repeats(self):
        for made in self.rounds():
            again = repeat_round(self.session, made, self.indexes)
            index = self.indexes.get(self.row)
            stored = [place.image_id for place in made.images]
            assert index.image_ids[again.rows].tolist() == stored, made.number
            if made.grouping_id is not None:
                bursts = [self.number(image_id) // BURST for image_id in stored]
                assert len(set(bursts)) == len(bursts)


@pytest.fixture
def hunt(session, settings):
    made = Bursts(session, settings)
    made.submit()  # the first grid is of before the grouping
    return made


# --- Grouping -----------------------------------------------------------------------------------


def list_groups(session, collection_id, images):
    """The events as sets of places among `images`, alone ones left out."""
    grouped = read_events(session, session.get_one(Collection, collection_id).grouping_id)
    if grouped is None:
        return []
    members = grouped.members_of([image.id for image in images])
    place_of = {image.id: place for place, image in enumerate(images)}
    return sorted(sorted(place_of[one] for one in own) for own in members.values())


@pytest.fixture
def pond(session, settings):
    """Twelve images without anything known, indexed; and a grip to group them."""
    collection = make_collection(session)
    images = make_images(session, collection, 12)
    person = make_person(session)

    def group(rule):
        indexes = OpenIndexes(settings)
        made = group_images(session, collection.id, rule, person=person, indexes=indexes)
        return made, list_groups(session, collection.id, images)

    return collection, images, group


def test_bursts_are_of_one_place_and_end_with_a_gap(session, pond):
    collection, images, group = pond
    start = datetime(2026, 5, 1, 6)
    for image, seconds in zip(images, [0, 60, 121, 5, 10, 30, 0, 0, 20, 30, 40], strict=False):
        image.captured_at = start + timedelta(seconds=seconds)
    here = Deployment(collection_id=collection.id, name="A1")
    session.add(here)
    session.flush()
    for image in images[3:6]:  # in another folder, and yet of one deployment
        image.deployment_id = here.id
    images[4].path = "elsewhere/IMG.jpg"
    images[6].path, images[7].path = "west/1.jpg", "west/2.jpg"
    images[8].camera = images[9].camera = "HC600"  # two of a make, in two folders
    images[9].path = "west/3.jpg"
    images[10].removed_at = NOW
    session.flush()
    made, groups = group(Rule("bursts", gap_s=60))
    # 60 s is within the gap, 61 is not; the last one has no time.
    assert groups == [[0, 1], [3, 4, 5], [6, 7]]
    assert (made.event_count, made.image_count, made.cut_count) == (3, 7, 0)
    assert group(Rule("bursts", gap_s=61))[1][0] == [0, 1, 2]
    assert group(Rule("none"))[1] == []


def test_removed_images_are_counted_neither_in_events_nor_alone(session, pond):
    collection, images, group = pond
    for number, image in enumerate(images):
        image.captured_at = datetime(2026, 5, 1) + timedelta(minutes=10 * (number // 4))
    session.flush()
    group(Rule("bursts", gap_s=60))
    for number in (0, 4, 5, 6):  # of three events of four images one keeps three, one a single one
        images[number].removed_at = NOW
    session.flush()
    view = events.describe_grouping(session, collection.id)
    assert (view.event_count, view.grouped_count, view.alone_count) == (2, 7, 1)
    assert [(one.image_count, len(one.images)) for one in view.examples] == [(4, 4), (3, 3)]


def test_a_time_lapse_is_cut_and_never_grouped_by_itself(
    database, session, pond, monkeypatch, settings
):
    collection, images, group = pond
    monkeypatch.setattr(events, "MOST_IMAGES", 5)
    for number, image in enumerate(images):
        image.captured_at = datetime(2026, 5, 1) + timedelta(minutes=number)
    make_index(session, settings, images)
    made, groups = group(Rule("bursts", gap_s=60))
    assert [len(own) for own in groups] == [5, 5, 2] and made.cut_count == 1
    collection.grouping_id = None
    session.flush()
    group_by_itself(database, collection.id, settings=settings)
    session.refresh(collection)
    by_itself = session.get_one(Grouping, collection.grouping_id)
    assert (by_itself.kind, by_itself.is_automatic, by_itself.event_count) == ("none", True, 0)


def test_an_import_keeps_the_rule_that_a_person_chose(database, session, pond, settings):
    collection, images, group = pond
    make_index(session, settings, images)
    for number, image in enumerate(images[:10]):
        image.captured_at = datetime(2026, 5, 1) + timedelta(seconds=30 * number)
    session.flush()

    def by_itself():
        group_by_itself(database, collection.id, settings=settings)
        session.expire_all()
        return session.get_one(Grouping, collection.grouping_id)

    first = by_itself()
    assert (first.kind, first.gap_s, first.image_count) == ("bursts", 60, 10)
    assert by_itself().id == first.id  # nothing new: the same one
    chosen, _ = group(Rule("bursts", gap_s=10))
    assert chosen.event_count == 0
    again = by_itself()
    assert (again.gap_s, again.is_automatic) == (10, False)


def test_grouping_keeps_nobody_from_adding_to_the_collection(own_database, settings):
    with own_database.session() as session:
        collection = make_collection(session)
        make_images(session, collection, 3)
        person = make_person(session)
    with own_database.session() as session:
        indexes = OpenIndexes(settings)
        group_images(session, collection.id, Rule("none"), person=person, indexes=indexes)
        with own_database.session() as other:
            other.execute(text("SET LOCAL lock_timeout = '2s'"))
            other.add(Import(collection_id=collection.id, source="/s", state="done"))
            other.flush()


def test_a_column_groups_what_shares_its_text_and_refuses_one_that_is_no_event(
    session, pond, monkeypatch
):
    collection, images, group = pond
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["sha256", "track", "bait"])
    for image, track in zip(images, [7, 8, 7, "", "", 9, 8, 7], strict=False):
        writer.writerow([image.sha256, track, "fish"])
    data = text.getvalue().encode()
    person = make_person(session, name="Ann")
    add_table(session, collection.id, name="t.csv", data=data, person=person)
    made, groups = group(Rule("column", column="track"))
    assert groups == [[0, 2, 7], [1, 6]]
    monkeypatch.setattr(events, "MOST_IMAGES", 5)
    with pytest.raises(BadInput, match=r"8 images have “fish” as their bait: that is no event"):
        group(Rule("column", column="bait"))
    with pytest.raises(BadInput, match="No table here has a column “depth”"):
        group(Rule("column", column="depth"))
    session.refresh(collection)
    assert collection.grouping_id == made.id


def test_near_duplicates_are_files_in_a_row_and_close_in_time(session, pond, settings):
    _, images, group = pond
    vectors = make_vectors(12, seed=3)
    vectors[1] = vectors[2] = vectors[0]
    vectors[9] = vectors[0]  # as alike, but nine files on
    vectors[4], vectors[6] = vectors[3], vectors[5]
    images[3].captured_at, images[4].captured_at = NOW.replace(tzinfo=None), datetime(2026, 1, 1)
    session.flush()
    with pytest.raises(Exception, match="prepared"):
        group(Rule("near-duplicates", likeness=0.99))
    make_index(session, settings, images, vectors)
    _, groups = group(Rule("near-duplicates", likeness=0.99))
    assert groups == [[0, 1, 2], [5, 6]]
    rule = Rule("near-duplicates", gap_s=90, likeness=0.99)
    assert re.search(r"one deployment.*likeness 0\.99 .* 90 s", events.describe_rule(rule))


# --- Searching ----------------------------------------------------------------------------------


def test_a_round_shows_one_image_an_event_and_its_answer_is_for_all(hunt):
    hunt.submit()
    grid = current_grid(hunt.session, hunt.search, hunt.person)
    bursts = [hunt.number(card.image_id) // BURST for card in grid.cards]
    assert len(set(bursts)) == 12
    # Bursts of which the first grid, of before, asked a part come with all their images.
    assert [card.event_ids for card in grid.cards] == [hunt.mates(c.image_id) for c in grid.cards]
    shown = grid.cards[0].image_id
    saved = hunt.answer({shown: "no:empty"})
    assert hunt.answers().items() >= dict.fromkeys(hunt.mates(shown), "no").items()
    assert set(saved.answers) == set(hunt.mates(shown))
    given = hunt.session.execute(
        select(Answer.image_id, Answer.with_image_id).filter_by(reason="empty")
    )
    assert {(one, along) for one, along in given} == {
        (one, None if one == shown else shown) for one in hunt.mates(shown)
    }
    assert (
        undo(hunt.session, hunt.search, person=hunt.person, gesture_key=None).sentence
        == "Took back “no:empty” for an event of 4 images in round 3."
    )
    assert not set(hunt.mates(shown)) & set(hunt.answers())


def test_one_image_can_be_answered_by_itself(hunt):
    hunt.submit()
    shown, other, *_ = hunt.shown()
    before = hunt.answers()
    hunt.answer({shown: "yes"}, alone=[shown])
    mates = hunt.mates(shown)
    fresh = [one for one in mates if one not in before]
    assert {one: hunt.answers().get(one) for one in fresh} == {
        one: "yes" if one == shown else None for one in fresh
    }
    card = current_grid(hunt.session, hunt.search, hunt.person).cards[0]
    assert (card.image_id, card.answers_alone) == (shown, True)
    hunt.answer({shown: "yes"})  # for the whole event after all
    assert {hunt.answers()[one] for one in fresh} == {"yes"}
    third = next(one for one in fresh if one != shown)
    hunt.answer({third: "no"}, alone=[third])  # in the strip
    hunt.answer({shown: "unsure"})
    assert hunt.answers()[third] == "no"
    assert {hunt.answers()[one] for one in fresh if one != third} == {"unsure"}
    strip = describe_event(hunt.session, hunt.search, shown, hunt.person, hunt.indexes)
    assert [card.image_id for card in strip.cards] == mates
    assert hunt.answer({shown: None}) and third in hunt.answers()
    assert shown not in hunt.answers()
    for _ in range(4):
        hunt.undo()
    assert {one: hunt.answers().get(one) for one in fresh} == {
        one: "yes" if one == shown else None for one in fresh
    }
    with pytest.raises(BadInput, match="not in this grid"):
        hunt.answer({other: "yes", 10**9: "no"})


def test_an_answer_changes_none_that_came_along_with_another_image(hunt):
    hunt.submit()
    shown = next(one for one in hunt.shown() if not set(hunt.mates(one)) & set(hunt.answers()))
    mates = hunt.mates(shown)
    late = next(one for one in mates if one != shown)
    image = hunt.session.get_one(Image, late)
    image.removed_at = NOW  # as if it were imported only after the answer
    hunt.session.flush()
    hunt.answer({shown: "yes"})
    image.removed_at = None
    hunt.session.flush()
    along = count_along(hunt.session, hunt.search, {late: mates, shown: mates})
    assert along == {late: (0, False), shown: (3, False)}
    hunt.answer({late: "no"})
    given = hunt.answers()
    assert [given[one] for one in mates] == ["no" if one == late else "yes" for one in mates]
    hunt.answer({shown: "unsure"})
    given = hunt.answers()
    assert [given[one] for one in mates] == ["no" if one == late else "unsure" for one in mates]


def test_a_corrected_or_settled_answer_takes_those_along_that_came_with_it(hunt):
    hunt.submit()
    shown = next(one for one in hunt.shown() if not set(hunt.mates(one)) & set(hunt.answers()))
    mates = hunt.mates(shown)
    apart, *others = [one for one in mates if one != shown]
    hunt.answer({shown: "yes"})
    hunt.answer({apart: "unsure"}, alone=[apart])
    own = {"session": hunt.session, "search": hunt.search, "person": hunt.person}
    along = searching.correct_answers(**own, values={shown: "no"}, gesture_key=None)
    assert along == {shown: others}
    expected = dict.fromkeys(mates, "no") | {apart: "unsure"}
    assert {one: hunt.answers()[one] for one in mates} == expected
    hunt.undo()
    assert {hunt.answers()[one] for one in [shown, *others]} == {"yes"}

    eva = make_person(hunt.session, name="Eva", role="ecologist")
    asked = {"reviewer_name": eva.name, "kind": "positives", "size": 40, "indexes": hunt.indexes}
    review = ask_review(**own, **asked)
    give_opinion(hunt.session, review, person=eva, values={shown: "no"})
    assert settle(**own, review=review, values={shown: "no"}) == len(others)
    assert {one: hunt.answers()[one] for one in mates} == expected


def test_rest_are_no_is_for_whole_events_and_undone_as_one(hunt):
    hunt.submit()
    shown = hunt.shown()
    before = hunt.answers()
    searching.submit_answers(
        hunt.session,
        hunt.search,
        person=hunt.person,
        round_id=hunt.search.current_round_id,
        values={},
        rest_are_no=True,
        gesture_key=None,
        indexes=hunt.indexes,
    )
    asked = {one for image_id in shown for one in hunt.mates(image_id)}
    assert {hunt.answers()[one] for one in asked - set(before)} == {"no"}
    assert not asked & set(hunt.shown())
    hunt.undo()
    assert hunt.answers() == before and hunt.shown() == shown


def test_stored_rounds_repeat_through_regrouping_detours_and_undo(hunt):
    hunt.submit()
    hunt.answer({hunt.shown()[0]: "no"}, alone=[hunt.shown()[0]])
    for kind in ("estimate", "second-look", "absence"):
        hunt.take(kind, 6)
        hunt.submit()
    change_search(
        hunt.session,
        hunt.search,
        target_name="Heron",
        strategy="rarefind",
        round_size=12,
        no_reasons=[],
        learns_from_poor=False,
        learns_from_events=True,
    )
    hunt.submit()
    hunt.undo()
    hunt.group(Rule("bursts", gap_s=1))
    hunt.submit()
    hunt.group(Rule("none"))
    hunt.submit()
    hunt.submit()
    rounds = hunt.rounds()
    assert len({made.grouping_id for made in rounds}) == 3  # none, first, second
    assert {made.learns_from_events for made in rounds} == {False, True}
    assert hunt.session.scalar(select(func.count()).select_from(Grouping)) == 3
    hunt.check_repeats()


def test_live_rounds_are_those_of_the_replay(session, settings):
    """The same seed and answers give the same images, live and against the oracle, with events."""
    hunt = Bursts(session, settings)
    opened = searching.open_search(
        session,
        person=hunt.person,
        collection_id=hunt.search.collection_id,
        target_name="Heron",
        strategy="rarefind",
        image_ids=[hunt.images[1].id],
        photo_ids=[],
        indexes=hunt.indexes,
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
        round_size=10,
        seed=8,
    )
    hunt.search = opened
    live = []
    for _ in range(5):
        live.append(hunt.shown())
        hunt.submit()
    grouped = read_events(session, hunt.rounds()[-1].grouping_id)
    played = replay(
        hunt.index,
        hunt.index.rows_of(sorted(hunt.targets)),
        opening_rows=hunt.index.rows_of([hunt.images[1].id]),
        strategy="rarefind",
        rounds=5,
        size=10,
        seed=8,
        events=grouped.rows_in(hunt.index),
    )
    assert [hunt.index.image_ids[one.proposal.rows].tolist() for one in played] == live


def test_two_people_are_never_asked_one_event(hunt):
    ben = make_person(hunt.session, name="Ben", role="ecologist")
    invite(hunt.session, hunt.person, hunt.search, ben.name)
    ada = hunt.person
    asked = {}
    for person in (ada, ben):
        searching.sit_down(
            hunt.session, hunt.search, person=person, visit=None, indexes=hunt.indexes
        )
    leased = hunt.session.scalars(select(Lease.image_id).filter_by(search_id=hunt.search.id)).all()
    assert len(leased) > 2 * 12  # whole events
    for _ in range(3):
        for person in (ada, ben):
            grid = current_grid(hunt.session, hunt.search, person)
            asked[person.id] = {hunt.number(card.image_id) // BURST for card in grid.cards}
            assert not asked[ada.id] & asked.get(ben.id, set())
            searching.submit_answers(
                hunt.session,
                hunt.search,
                person=person,
                round_id=grid.round_id,
                values={},
                rest_are_no=True,
                gesture_key=None,
                indexes=hunt.indexes,
            )
    hunt.check_repeats()


def test_a_grid_of_large_events_is_leased_whole(hunt):
    """More images than a statement may have parameters."""
    collection_id = hunt.search.collection_id
    numbers = func.generate_series(1, 22_000).column_valued("number")
    made = (
        insert(Image)
        .from_select(
            ["collection_id", "sha256", "path", "file", "size_bytes", "format", "width", "height"],
            select(
                literal(collection_id),
                func.concat("x", numbers),
                *(literal("x"), literal("x"), literal(1), literal("JPEG"), literal(1), literal(1)),
            ),
        )
        .returning(Image.id)
    )
    image_ids = hunt.session.scalars(made).all()
    seat = hunt.session.scalars(select(Seat).filter_by(search_id=hunt.search.id)).one()
    lease(hunt.session, seat, image_ids)
    assert list_own(hunt.session, seat) == set(image_ids)


# --- Counting and exporting -----------------------------------------------------------------------


def test_likely_images_are_counted_in_events_as_on_the_dashboard(hunt):
    hunt.submit()
    found = [image_id for image_id, value in hunt.answers().items() if value == "yes"]
    searching.correct_answers(  # a burst whose images are open again, and likely
        hunt.session,
        hunt.search,
        person=hunt.person,
        values=dict.fromkeys(hunt.mates(found[-1])),
        gesture_key=None,
    )
    moment = open_moment(hunt.session, hunt.search, hunt.indexes, None)
    likely = list_results(hunt.session, hunt.search, show="likely", page=1, indexes=hunt.indexes)
    assert likely.likely_events == len(moment.list_likely(MOST_LIKELY)) < likely.counts["likely"]
    assert "One image stands for each event" in tell_looks(moment).map.sentence


def test_finds_are_counted_in_images_and_in_events(hunt):
    hunt.submit()
    hunt.submit()
    moment = open_moment(hunt.session, hunt.search, hunt.indexes, None)
    found = tell_found(moment)
    yes = [image_id for image_id, value in hunt.answers().items() if value == "yes"]
    events_found = {hunt.number(image_id) // BURST for image_id in yes}
    assert (found.positives, found.positive_events) == (len(yes), len(events_found))
    assert found.positives > found.positive_events
    grid = current_grid(hunt.session, hunt.search, hunt.person)
    results = list_results(hunt.session, hunt.search, show="yes", page=1, indexes=hunt.indexes)
    assert grid.found_events == results.found_events == len(events_found)
    answered = {hunt.number(image_id) // BURST for image_id in hunt.answers()}
    assert found.per_hundred == pytest.approx(100 * len(events_found) / len(answered))
    assert found.by_chance.value <= 100
    standing = build_standing(moment)
    assert standing.found == len(events_found)
    assert standing.image_count == 50
    assert tell_left(moment).counts_events


def test_an_event_found_in_part_is_not_left_as_well(hunt):
    def bursts(*values):
        given = hunt.answers()
        return {hunt.number(one.id) // BURST for one in hunt.images if given.get(one.id) in values}

    found, half_open = bursts("yes"), bursts(None)
    assert found & half_open  # the example is one image of its burst
    moment = open_moment(hunt.session, hunt.search, hunt.indexes, None)
    standing = build_standing(moment)
    assert standing.image_count == 50
    assert standing.unanswered_count == 50 - len(bursts("yes", "no"))
    assert len(standing.scores) == len(half_open - found)


def test_a_sample_is_of_events_and_says_how_many_are_left(hunt):
    hunt.submit()
    hunt.take("absence", 30)
    while hunt.made().detour_id:
        hunt.submit()
    moment = open_moment(hunt.session, hunt.search, hunt.indexes, None)
    standing = build_standing(moment)
    control = standing.control
    assert control is not None and control.asked == len(control.plan.rows)
    assert len(set(control.plan.rows.tolist())) == len(control.plan.rows)
    assert len(control.plan.frame) == len(set(control.plan.frame.tolist())) <= 50
    certified = next(one for one in tell_left(moment).statements if one.name == "random-sample")
    assert certified.cost == len(control.plan.rows)
    unanswered = {
        hunt.number(image.id) // BURST for image in hunt.images if image.id not in hunt.answers()
    }
    assert standing.unanswered_count == len(unanswered)
    truly_left = len({one for one in unanswered if one < 5})
    assert truly_left <= certified.high
    assert Value.YES in standing.answers.values
    hunt.group(Rule("bursts", gap_s=1))
    hunt.submit()
    later = open_moment(hunt.session, hunt.search, hunt.indexes, None)
    assert build_standing(later).control is None  # it was a sample of other events


def read_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_exports_name_events_only_where_there_are_any(hunt, session, settings):
    hunt.submit()

    def write(name):
        content = write_file(
            session,
            hunt.search,
            name,
            indexes=hunt.indexes,
            settings=settings,
            now=NOW,
            person=hunt.search.owner,
            readers=Readers(settings),
        )
        return b"".join(content).decode()

    rows = read_csv(write("images.csv"))
    assert len(rows) == 200
    by_path = {row["path"]: row for row in rows}
    for number, image in enumerate(hunt.images):
        first = hunt.images[BURST * (number // BURST)].id
        assert int(by_path[image.path]["event_id"]) == first
    along = [row for row in rows if row["answered_with"]]
    assert along and all(row["answer"] for row in along)
    assert {by_path[row["answered_with"]]["event_id"] == row["event_id"] for row in along} == {True}
    hunt.group(Rule("none"))
    hunt.submit()
    for name in ("images.csv", "answers.csv", "answers.jsonl"):
        assert "event_id" not in write(name) and "answered_with" not in write(name)


def test_a_search_with_events_repeats_elsewhere(hunt, own_database, tmp_path, settings):
    hunt.submit()
    hunt.take("estimate", 18)
    hunt.submit()
    data = write_bundle(hunt, settings)
    elsewhere = settings.model_copy(update={"home": tmp_path / "elsewhere"})
    order = np.random.default_rng(5).permutation(200).tolist()
    with own_database.session() as session:
        person = make_person(session, name="Cy")
        collection = make_other_collection(session, elsewhere, hunt, order=order)
        indexes = OpenIndexes(elsewhere)
        search = import_search(
            session,
            person,
            collection,
            data,
            indexes=indexes,
            settings=elsewhere,
            now=NOW,
            readers=Readers(elsewhere),
        )
        repeated = repeat_rounds(session, search, indexes, at_most=99)
        assert repeated.same == repeated.total == len(hunt.rounds())
        assert session.get_one(Collection, collection.id).grouping_id is None
        along = select(func.count()).where(Answer.with_image_id.is_not(None))
        assert session.scalar(along) == hunt.session.scalar(along) > 0


def test_second_opinions_are_on_images_that_somebody_looked_at(hunt):
    hunt.submit()
    eva = make_person(hunt.session, name="Eva", role="ecologist")
    ask_review(
        hunt.session,
        hunt.search,
        person=hunt.person,
        reviewer_name=eva.name,
        kind="positives",
        size=40,
        indexes=hunt.indexes,
    )
    asked = set(hunt.session.scalars(select(ReviewImage.image_id)))
    along = select(Answer.image_id).where(Answer.with_image_id.is_not(None))
    assert asked and not asked & set(hunt.session.scalars(along))


def test_history_tells_of_an_event_as_what_it_is(hunt):
    hunt.submit()
    hunt.answer({hunt.shown()[0]: "yes"})
    page = list_history(hunt.session, hunt.search, page=1)
    assert page.events[0].sentence == "Answered an event of 4 images “yes” in round 3"
    undo(hunt.session, hunt.search, person=hunt.person, gesture_key=None)
    page = list_history(hunt.session, hunt.search, page=1)
    taken_back = "Took back the answer “yes” for an event of 4 images in round 3"
    assert page.events[0].sentence == taken_back


def test_a_collection_is_deleted_with_its_groupings(hunt):
    hunt.submit()
    hunt.session.execute(delete(Search).filter_by(id=hunt.search.id))
    hunt.session.execute(delete(Collection).filter_by(id=hunt.images[0].collection_id))
    assert hunt.session.scalar(select(func.count()).select_from(Grouping)) == 0
