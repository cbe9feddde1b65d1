"""Tags and notes: who writes them, what stands, and that nothing of before is lost."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from app.errors import BadInput, NotAllowed, NotFound
from app.events import Rule, group_images
from app.exports.offers import write_file
from app.filtering import describe_offer, list_chips, list_image_ids, read_filter
from app.remarks import (
    MAX_TAG_LENGTH,
    MAX_TAGS,
    add_tags,
    change_note,
    list_image_tags,
    list_search_tags,
    put_note_back,
    read_remarks,
    read_remarks_of_images,
    remove_note,
    tag_images,
    take_tag_off,
    write_note,
)
from app.reporting import list_searches
from app.results import list_results
from app.searching import record_answers
from app.tables import Image, Import, NoteEvent, RoundImage, SearchMember, TagEvent
from tests.factories import make_person
from tests.features.test_export_formats import Hunt

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def hunt(session, settings, readers):
    return Hunt(session, settings, readers)


def export(hunt, name):
    written = write_file(
        hunt.session,
        hunt.search,
        name,
        indexes=hunt.indexes,
        settings=hunt.settings,
        now=NOW,
        person=hunt.person,
        readers=hunt.readers,
    )
    return b"".join(written).decode()


def find(hunt, where):
    pairs = [tuple(part.split("=", 1)) for part in where.split("&")]
    chosen = read_filter(hunt.session, hunt.collection.id, pairs, person=hunt.person)
    kept = set(list_image_ids(hunt.session, hunt.collection.id, chosen).tolist())
    return [n for n, image in enumerate(hunt.images) if image.id in kept]


def test_tags_are_put_on_and_taken_off_as_events(hunt):
    session, person, image = hunt.session, hunt.person, hunt.images[0]
    assert add_tags(session, person, image, " Young  bird,wet; wet ") == ["young bird", "wet"]
    add_tags(session, person, image, "WET")  # is there already
    take_tag_off(session, person, image, "wet")
    take_tag_off(session, person, image, "wet")
    assert read_remarks(session, image).tags == ["young bird"]
    add_tags(session, person, image, "wet")
    assert read_remarks(session, image).tags == ["wet", "young bird"]
    events = session.execute(select(TagEvent.tag, TagEvent.is_on).order_by(TagEvent.id)).all()
    assert [tuple(one) for one in events] == [
        *(("young bird", True), ("wet", True), ("wet", False), ("wet", True)),
    ]
    for wrong in ("", " , ", "x" * (MAX_TAG_LENGTH + 1), "a\x00b", "a\u202eb"):
        with pytest.raises(BadInput):
            add_tags(session, person, image, wrong)
    with pytest.raises(BadInput, match="room for 20"):
        add_tags(session, person, image, ",".join(map(str, range(MAX_TAGS - 1))))
    assert len(read_remarks(session, image).tags) == 2


def test_many_images_are_tagged_at_once_and_the_tag_taken_off_again(hunt):
    session, person = hunt.session, hunt.person
    ids = [image.id for image in hunt.images[:4]]
    add_tags(session, person, hunt.images[1], "wet")
    put = tag_images(session, person, hunt.collection, ids, "wet, fog", is_on=True)
    assert put == {"wet": [ids[0], *ids[2:]], "fog": ids}  # what an undo takes off again
    again = tag_images(session, person, hunt.collection, ids, "wet", is_on=True)
    assert again == {"wet": []}
    assert list_image_tags(session, hunt.collection.id) == [("fog", 4), ("wet", 4)]
    off = tag_images(session, person, hunt.collection, ids[:3], "fog", is_on=False)
    assert off == {"fog": ids[:3]}
    assert list_image_tags(session, hunt.collection.id) == [("wet", 4), ("fog", 1)]
    with pytest.raises(NotFound):
        tag_images(session, person, hunt.collection, [*ids, 987_654], "wet", is_on=True)
    with pytest.raises(BadInput, match="Select the images"):
        tag_images(session, person, hunt.collection, [], "wet", is_on=True)


def test_notes_are_changed_removed_and_put_back_and_every_text_is_kept(hunt):
    session, ada, image = hunt.session, hunt.person, hunt.images[0]
    ada.role = "ecologist"
    ben = make_person(session, name="Ben", role="ecologist")
    note_id = write_note(session, ada, image, "  Two of them?\r\nBehind the reed.  ")
    other_id = write_note(session, ben, image, "A decoy.")
    change_note(session, ada, image, note_id, "Three of them.")
    first, second = read_remarks(session, image).notes
    assert (first.text, first.who) == ("Three of them.", "=Ada")
    assert first.changed_at is not None
    assert (second.note_id, second.text, second.changed_at) == (other_id, "A decoy.", None)
    with pytest.raises(NotAllowed):
        change_note(session, ben, image, note_id, "None.")
    with pytest.raises(NotAllowed):
        remove_note(session, ben, image, note_id)
    with pytest.raises(NotFound):  # a note of another image
        remove_note(session, ada, hunt.images[1], note_id)
    remove_note(session, ada, image, note_id)
    assert [one.text for one in read_remarks(session, image).notes] == ["A decoy."]
    with pytest.raises(NotFound, match="was removed"):
        change_note(session, ada, image, note_id, "Again.")
    put_note_back(session, ada, image, note_id)
    assert [one.text for one in read_remarks(session, image).notes] == [
        *("Three of them.", "A decoy."),
    ]
    hunt.collection.made_by_id = ada.id
    remove_note(session, ada, image, other_id)  # whose collection it is
    said = session.scalars(select(NoteEvent.text).order_by(NoteEvent.id)).all()
    assert said == [
        *("Two of them?\nBehind the reed.", "A decoy.", "Three of them.", None, "Three of them."),
        None,
    ]
    for wrong in (" ", "a\x00b", "x" * 2_001):
        with pytest.raises(BadInput):
            write_note(session, ada, image, wrong)


def test_viewers_read_and_on_a_search_only_its_members_write(hunt):
    session, owner = hunt.session, hunt.person
    vic = make_person(session, name="Vic", role="viewer")
    ben = make_person(session, name="Ben", role="ecologist")
    for about in (hunt.images[0], hunt.search):
        with pytest.raises(NotAllowed):
            add_tags(session, vic, about, "wet")
        with pytest.raises(NotAllowed):
            write_note(session, vic, about, "x")
    with pytest.raises(NotAllowed):
        tag_images(session, vic, hunt.collection, [hunt.images[0].id], "wet", is_on=True)
    hunt.search.open_to_view = True
    add_tags(session, ben, hunt.images[0], "wet")  # the collection's
    with pytest.raises(NotAllowed):
        add_tags(session, ben, hunt.search, "wet")
    session.add(SearchMember(search_id=hunt.search.id, person_id=ben.id, added_by_id=owner.id))
    session.flush()
    note_id = write_note(session, ben, hunt.search, "x")
    remove_note(session, owner, hunt.search, note_id)
    assert read_remarks(session, hunt.search).notes == []


def test_images_are_filtered_by_tags_and_notes(hunt):
    session, person, images = hunt.session, hunt.person, hunt.images
    add_tags(session, person, images[0], "wet")
    add_tags(session, person, images[1], "wet, fog")
    add_tags(session, person, images[2], "fog, none")
    take_tag_off(session, person, images[1], "wet")
    write_note(session, person, images[3], "50% of an Otter")
    removed = write_note(session, person, images[4], "otter")
    remove_note(session, person, images[4], removed)
    note_id = write_note(session, person, images[5], "otter")
    change_note(session, person, images[5], note_id, "mink")
    write_note(session, person, hunt.search, "otter")  # is on no image
    add_tags(session, person, hunt.search, "wet")
    assert find(hunt, "tag=wet") == [0]
    assert find(hunt, "tag=Fog") == [1, 2]
    assert find(hunt, "tag=wet&tag=fog") == [0, 1, 2]
    assert find(hunt, "tag=none") == [2]
    assert find(hunt, "tagged=any") == [0, 1, 2]
    assert find(hunt, "tagged=none") == list(range(3, 30))
    assert find(hunt, "note=otter") == [3]
    assert find(hunt, "note=0%") == [3]
    assert find(hunt, "note=mink&tagged=none") == [5]
    with pytest.raises(BadInput, match="tagged is none"):
        find(hunt, "tagged=wet")
    pairs = [("tag", "wet"), ("note", "otter"), ("tagged", "any")]
    chosen = read_filter(session, hunt.collection.id, pairs, person=person)
    words = {chip.words: chip.rest for chip in list_chips(session, chosen)}
    assert set(words) == {"With a tag", "Tag wet", "Note with otter"}
    assert words["Tag wet"] == (("tagged", "any"), ("note", "otter"))
    offer = describe_offer(session, person, hunt.collection.id)
    assert offer.tags == [("fog", 2), ("none", 1), ("wet", 1)]
    assert offer.has_notes


def test_searches_are_found_by_name_tag_and_note_of_their_own(hunt):
    session, person = hunt.session, hunt.person

    def found(words, who=person):
        return [one.search.id for one in list_searches(session, who, find=words)]

    add_tags(session, person, hunt.search, "pilot")
    write_note(session, person, hunt.search, "For the report of 2026")
    add_tags(session, person, hunt.images[0], "bait")
    for words in ("heron", "PILOT", "report", "grey pilot 2026"):
        assert found(words) == [hunt.search.id], words
    for words in ("bait", "pilot 2027", "stork", "%"):
        assert found(words) == [], words
    other = make_person(session, name="Ben", role="ecologist")
    assert found("pilot", other) == []
    assert list_search_tags(session, other) == []
    assert list_search_tags(session, person) == [("pilot", 1)]
    (summary,) = list_searches(session, person)
    assert summary.remarks.tags == ["pilot"]


def test_results_and_exports_have_them(hunt):
    session, person, image = hunt.session, hunt.person, hunt.images[0]
    add_tags(session, person, image, "wet, =1+1")
    write_note(session, person, image, "Two of them,\nbehind the reed.")
    results = list_results(session, hunt.search, show="yes", page=1, indexes=hunt.indexes)
    tags = {card.image_id: card.remarks.tags for card in results.cards}
    assert tags[image.id] == ["=1+1", "wet"] and tags[hunt.images[1].id] == []
    day = datetime.now(UTC).date()
    for name in ("answers.csv", "images.csv"):
        row, plain, *_ = csv.DictReader(io.StringIO(export(hunt, name)))
        assert row["tags"] == "'=1+1; wet"
        assert row["notes"] == f"Two of them, behind the reed. (=Ada, {day})"
        assert (plain["tags"], plain["notes"]) == ("", "")
    row, *_ = map(json.loads, export(hunt, "answers.jsonl").splitlines())
    assert row["tags"] == ["=1+1", "wet"]
    assert row["notes"][0] | {"at": ""} == {
        "text": "Two of them,\nbehind the reed.",
        "by": "=Ada",
        "at": "",
    }
    coco = json.loads(export(hunt, "coco.json"))["images"]
    assert [one.get("tags") for one in coco[:2]] == [["=1+1", "wet"], None]


def test_exports_name_no_folder_that_may_be_a_label(hunt):
    """But where another file has the same name, the path is needed to tell them apart."""
    rule = Rule("bursts", gap_s=3_600)
    group_images(hunt.session, hunt.collection.id, rule, person=hunt.person, indexes=hunt.indexes)
    hunt.submit()
    (looked_at, *_) = hunt.session.scalars(
        select(RoundImage.image_id).filter_by(round_id=hunt.search.current_round_id)
    )
    record_answers(
        hunt.session,
        hunt.search,
        person=hunt.person,
        round_id=hunt.search.current_round_id,
        values={looked_at: "no"},
        gesture_key=None,
    )
    hunt.images[1].path, hunt.images[11].path = "A/twin.jpg", "B/Twin.jpg"
    hunt.session.add(
        Import(collection_id=hunt.collection.id, source="/s", labels="folders", state="done")
    )
    hunt.session.flush()
    rows = list(csv.DictReader(io.StringIO(export(hunt, "images.csv"))))
    paths = [row["path"] for row in rows]
    assert "IMG..00.jpg" in paths and {"A/twin.jpg", "B/Twin.jpg"} < set(paths)
    assert sum("/" in path for path in paths) == 2
    assert {row["folder"] for row in rows} == {""}
    own_name = hunt.session.get_one(Image, looked_at).path.rsplit("/", 1)[-1]
    assert {row["answered_with"] for row in rows} == {"", own_name}
    coco = json.loads(export(hunt, "coco.json"))["images"]
    assert {one["location"] for one in coco} == {""}


def test_reading_many_images_gives_each_its_own(hunt):
    session, person = hunt.session, hunt.person
    add_tags(session, person, hunt.images[0], "wet")
    write_note(session, person, hunt.images[1], "x")
    ids = [image.id for image in hunt.images]
    found = read_remarks_of_images(session, ids)
    assert set(found) == set(ids[:2])
    assert (found[ids[0]].tags, found[ids[0]].notes) == (["wet"], [])
    assert ([note.text for note in found[ids[1]].notes], found[ids[1]].tags) == (["x"], [])
    assert read_remarks_of_images(session, []) == {}
