"""What the searches of a collection found together: each once, and only what its reader may see."""

import csv
import io
from datetime import datetime, timedelta

import pytest

from app import searching
from app.events import Rule, group_images
from app.finds import describe_finds, list_found_as, write_finds
from app.indexing import LoadedEmbedders, OpenIndexes
from app.removing import remove_images
from app.sensitive import EXACT
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person


class Pond:
    """Forty images, and searches in them."""

    def __init__(self, session, settings):
        self.session, self.settings = session, settings
        self.me = make_person(session, name="=me", role="ecologist")
        self.other = make_person(session, name="other", role="ecologist")
        self.collection = make_collection(session)
        self.images = make_images(session, self.collection, 40)
        for number, image in enumerate(self.images):
            image.captured_at = datetime(2026, 5, 1) + timedelta(
                minutes=10 * (number // 2), seconds=number % 2
            )
        make_index(session, settings, self.images)
        self.indexes = OpenIndexes(settings)

    def hunt(self, person, name, answers, *, shown=False):
        """A search with these answers by number of image; the images are corrected, as by hand."""
        search = searching.open_search(
            self.session,
            person=person,
            collection_id=self.collection.id,
            target_name=name,
            round_size=6,
            image_ids=[self.images[39].id],
            photo_ids=[],
            indexes=self.indexes,
            embedders=LoadedEmbedders(self.settings, Readers(self.settings)),
            settings=self.settings,
        )
        search.open_to_view = shown
        self.correct(search, answers | {39: None})  # but for the example, which is a yes by itself
        return search

    def correct(self, search, answers):
        values = {self.images[number].id: value for number, value in answers.items()}
        searching.correct_answers(
            self.session, search, person=search.owner, values=values, gesture_key=None
        )

    def describe(self, person):
        return describe_finds(self.session, person, self.collection.id)

    def rows(self, person):
        text = "".join(write_finds(self.session, person, self.collection.id, sight=EXACT))
        return list(csv.DictReader(io.StringIO(text)))

    def place(self, image_id):
        return next(place for place, one in enumerate(self.images) if one.id == image_id)


@pytest.fixture
def pond(session, settings):
    return Pond(session, settings)


def test_finds_of_all_searches_that_one_sees_and_of_no_others(pond):
    heron = pond.hunt(pond.me, "Heron", {1: "yes", 2: "yes", 3: "no", 4: "unsure", 5: "yes"})
    pond.hunt(pond.other, "Otter", {2: "yes", 7: "yes"}, shown=True)
    pond.hunt(pond.other, "Secret newt", {1: "yes", 9: "yes"})  # nobody else's business
    pond.correct(heron, {5: "no"})  # the newest answer counts
    finds = pond.describe(pond.me)
    assert [
        (one.search.target_name, [pond.place(image_id) for image_id in one.image_ids])
        for one in finds.targets
    ] == [("Heron", [1, 2]), ("Otter", [2, 7])]
    assert finds.image_count == 3
    assert [
        (pond.place(one.image.id), [find.search.target_name for find in one.finds])
        for one in finds.shared
    ] == [(2, ["Heron", "Otter"])]
    assert [
        (row["path"], row["target"], row["also_found_as"], row["answered_by"])
        for row in pond.rows(pond.me)
    ] == [
        ("site/IMG_0001.jpg", "Heron", "", "'=me"),
        ("site/IMG_0002.jpg", "Heron", "Otter", "'=me"),
        ("site/IMG_0002.jpg", "Otter", "Heron", "other"),
        ("site/IMG_0007.jpg", "Otter", "", "other"),
    ]
    assert [one.target_name for one in list_found_as(pond.session, pond.me, pond.images[1])] == [
        "Heron"
    ]
    assert len(list_found_as(pond.session, pond.other, pond.images[2])) == 1  # their own alone


def test_the_same_target_twice_is_no_image_of_two_targets(pond):
    pond.hunt(pond.me, "Grey  heron", {1: "yes", 2: "yes"})
    pond.hunt(pond.me, "grey heron", {2: "yes"})
    finds = pond.describe(pond.me)
    assert (finds.image_count, finds.shared_count, finds.shared) == (2, 0, [])
    assert [row["also_found_as"] for row in pond.rows(pond.me)] == ["", "", ""]


def test_removed_images_are_left_out_and_events_are_counted(pond, session):
    group_images(
        session,
        pond.collection.id,
        Rule("bursts", gap_s=60),
        person=pond.me,
        indexes=pond.indexes,
    )
    # 2 and 3 are one event: the answer to one is for both.
    pond.hunt(pond.me, "Heron", {2: "yes", 3: "yes", 8: "yes", 10: "yes"})
    remove_images(session, pond.collection.id, [pond.images[10].id], person=pond.me)
    (heron,) = pond.describe(pond.me).targets
    rows = pond.rows(pond.me)
    assert len(heron.image_ids) == len(rows)
    assert {pond.images[10].path}.isdisjoint(row["path"] for row in rows)
    assert heron.event_count == len({row["event_id"] for row in rows}) == 2


def test_nothing_found_is_a_header_alone(pond):
    pond.hunt(pond.me, "Heron", {1: "no"})
    assert pond.describe(pond.me).targets == []
    text = "".join(write_finds(pond.session, pond.me, pond.collection.id, sight=EXACT))
    assert text.startswith("target,path,")
    assert text.count("\n") == 1
