"""A search taken to another database as a file: every stored round repeats, image for image."""

import hashlib
import io
import json
import zipfile
from datetime import UTC, datetime, timedelta

import numpy as np
import PIL.Image
import pytest
from sqlalchemy import create_engine, func, select

from app import searching
from app.adjusting import change_search, filter_search
from app.answers import read_current_answers, read_reasons
from app.cards import change_card, put_on_card, read_card
from app.database import Database, psycopg_url
from app.engine.stopping import STOP_RULES
from app.errors import BadInput, EmbedderMismatch
from app.exports.bundles import MOST_BYTES, import_search, repeat_rounds
from app.exports.details import read_details, save_details
from app.exports.offers import write_file
from app.filtering import Filter
from app.history import list_history
from app.importing import read_photo
from app.indexes import list_indexes
from app.indexing import OpenIndexes, get_current_index
from app.premises import to_bytes
from app.remarks import (
    add_tags,
    change_note,
    read_remarks,
    read_remarks_of_images,
    remove_note,
    take_tag_off,
    write_note,
)
from app.reporting import current_grid
from app.seats import find_seat, list_seats, stay
from app.sensitive import hide_people
from app.steps import undo
from app.tables import (
    ChosenGoal,
    Detour,
    Example,
    ExampleVector,
    Image,
    ImageIndex,
    Lease,
    Person,
    Photo,
    Pool,
    Round,
    Search,
)
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person, make_picture
from tests.features.test_detours import Hunt
from tests.features.test_export_formats import DETAILS

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.fixture
def other_database(make_database_url, template_name):
    engine = create_engine(psycopg_url(make_database_url(template_name)))
    yield Database(engine)
    engine.dispose()


def hunt_everywhere(session, settings, readers) -> Hunt:
    """A search with every kind of step, of two people, by examples of every kind."""
    hunt = Hunt(session, settings)
    for number, image in enumerate(hunt.images):
        image.sha256 = hashlib.sha256(bytes([number])).hexdigest()
    change_search(
        session,
        hunt.search,
        target_name="Grey heron",
        strategy="rarefind",
        round_size=12,
        no_reasons=["a decoy"],
        learns_from_poor=False,
    )
    change_card(
        session, hunt.search, counts_as_yes="also young ones", counts_as_no="storks, egrets"
    )
    put_on_card(session, hunt.search, hunt.images[3].id, "yes")
    put_on_card(session, hunt.search, hunt.images[190].id, "no")
    hunt.submit()
    searching.correct_answers(
        session,
        hunt.search,
        person=hunt.person,
        values={image.id: "no:too-poor" for image in hunt.images[1:8]}
        | {hunt.images[170].id: "no:a decoy"},
        gesture_key=None,
    )
    add_examples(session, settings, readers, hunt)
    hunt.submit()
    hunt.take("estimate", 18)
    hunt.submit()
    hunt.undo()
    hunt.redo()
    hunt.take("gap", 12, hunt.images[150].id)
    searching.submit_answers(  # leaves all but one open
        session,
        hunt.search,
        person=hunt.person,
        round_id=hunt.search.current_round_id,
        values={hunt.shown()[0]: "unsure"},
        rest_are_no=False,
        gesture_key=None,
        indexes=hunt.indexes,
    )
    hunt.images[160].removed_at = NOW
    stay(session, find_seat(session, hunt.search, hunt.person))
    hunt.person = make_person(session, name="Ben", role="ecologist")
    searching.sit_down(session, hunt.search, person=hunt.person, visit=None, indexes=hunt.indexes)
    hunt.submit()
    hunt.take("gap", 12, hunt.images[120].id)
    hunt.submit()
    hunt.take(None)
    hunt.submit()
    hunt.undo()
    assert hunt.made().leased_ids
    goal = {"rule": next(iter(STOP_RULES)), "recall": 0.8, "confidence": 0.9}
    session.add(ChosenGoal(search_id=hunt.search.id, person_id=hunt.person.id, **goal))
    save_details(session, hunt.search, DETAILS)
    session.flush()
    return hunt


def add_examples(session, settings, readers, hunt) -> None:
    data = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    make_picture(9).save(data, "JPEG", exif=exif)
    read = read_photo(data.getvalue(), settings=settings, readers=readers)
    photo = Photo(
        person_id=hunt.person.id,
        name="mine.jpg",
        sha256=read.sha256,
        width=read.width,
        height=read.height,
    )
    session.add(photo)
    session.flush()
    for seed, what in enumerate(({"photo_id": photo.id}, {"words": "grey heron"})):
        example = Example(search_id=hunt.search.id, **what)
        session.add(example)
        session.flush()
        vector = hunt.index.vectors[seed + 3]
        session.add(
            ExampleVector(
                example_id=example.id,
                revision="1",
                vector=to_bytes(vector),
                after_round_id=hunt.search.current_round_id,
            )
        )
    session.flush()


def make_other_collection(session, settings, hunt, *, order, but=0, revision="1"):
    """The same images in another order, with other numbers, under other paths."""
    make_images(session, make_collection(session, name="Other"), 7)
    collection = make_collection(session, name="Same pond")
    images = make_images(session, collection, len(order) - but)
    for image, number in zip(images, order, strict=False):
        image.sha256 = hunt.images[number].sha256
    session.flush()
    vectors = np.asarray(hunt.index.vectors)[order[: len(images)]]
    make_index(session, settings, images, vectors, revision=revision)
    return collection


def write_bundle(hunt, settings) -> bytes:
    with Readers(settings) as readers:
        return b"".join(
            write_file(
                hunt.session,
                hunt.search,
                "search.rarefind",
                indexes=hunt.indexes,
                settings=settings,
                now=NOW,
                person=hunt.search.owner,
                readers=readers,
            )
        )


@pytest.fixture
def hunt(session, settings, readers):
    return hunt_everywhere(session, settings, readers)


def list_stored(session, search, images):
    """Each round's images by their content, and what chose them."""
    return [
        (made.number, made.strategy, [(images[one.image_id], one.reason) for one in made.images])
        for made in session.scalars(select(Round).filter_by(search_id=search.id).order_by(Round.id))
    ]


def list_tips_by_person(session, search):
    """Which of the search's rounds each person has before them, by its place among them."""
    rounds = session.scalars(select(Round.id).filter_by(search_id=search.id).order_by(Round.id))
    places = {round_id: place for place, round_id in enumerate(rounds)}
    seats = list_seats(session, search)
    assert search.current_round_id == max(seat.round_id for seat in seats)
    return {
        seat.person.name.removesuffix(" (from a file)").upper(): places[seat.round_id]
        for seat in seats
    }


def list_given(session, search):
    """Every answer that stands and its reason, by the content of its image."""
    answers = read_current_answers(session, search, with_removed=True)
    reasons = read_reasons(session, search, list(answers))
    assert set(reasons.values()) == {"too-poor", "a decoy"}
    images = hash_images(session)
    return {images[one]: (value, reasons.get(one)) for one, value in answers.items()}


def hash_images(session):
    return dict(session.execute(select(Image.id, Image.sha256)).all())


@pytest.mark.parametrize(("name", "permuted"), [("ME", False), ("Cleo", True)])
def test_search_repeats_in_another_database(
    hunt, settings, readers, tmp_path, other_database, name, permuted
):
    data = write_bundle(hunt, settings)
    assert repeat_rounds(hunt.session, hunt.search, hunt.indexes, at_most=99).same >= 8
    stored = list_stored(hunt.session, hunt.search, hash_images(hunt.session))
    there = settings.model_copy(update={"home": tmp_path / "there"})
    indexes = OpenIndexes(there)
    order = np.random.default_rng(3).permutation(200) if permuted else np.arange(200)
    with other_database.session() as session:
        person = make_person(session, name=name)
        collection = make_other_collection(session, there, hunt, order=order)
        before = get_current_index(session, collection.id).id
        search = import_search(
            session,
            person,
            collection,
            data,
            indexes=indexes,
            settings=there,
            now=NOW,
            readers=readers,
        )
        search_id = search.id
    with other_database.session() as session:
        search = session.get_one(Search, search_id)
        repeated = repeat_rounds(session, search, indexes, at_most=99)
        assert repeated.same == repeated.total == repeated.tried == len(stored)
        images = hash_images(session)
        assert list_stored(session, search, images) == stored
        assert list_given(session, search) == list_given(hunt.session, hunt.search)
        told = list_history(session, search, page=1).events
        own = list_history(hunt.session, hunt.search, page=1).events
        assert [(one.at, one.kind, one.taken_back, one.sentence) for one in told] == [
            (one.at, one.kind, one.taken_back, one.sentence) for one in own
        ]
        assert {one.who for one in told} == {
            "ME" if name == "ME" else "me (from a file)",
            "Ben (from a file)",
        }
        assert session.scalar(select(Person.closed_at).filter_by(name="Ben (from a file)"))
        assert (search.target_name, search.owner.name) == ("Grey heron", name)
        assert (search.counts_as_no, search.no_reasons) == ("storks, egrets", ["a decoy"])
        assert not search.learns_from_poor
        card = read_card(session, search)
        assert [[one.sha256 for one in some] for some in (card.yes, card.no)] == [
            [hunt.images[number].sha256] for number in (3, 190)
        ]
        # Everybody has the grid that they had, who is new here the newest; nobody is there.
        tips = list_tips_by_person(hunt.session, hunt.search)
        tips.setdefault(name.upper(), max(tips.values()))
        assert list_tips_by_person(session, search) == tips
        assert session.scalar(select(func.count()).select_from(Lease)) == 0
        assert read_details(search).scientific_name == "Ardea cinerea"
        assert session.scalar(select(ChosenGoal.recall).filter_by(search_id=search_id)) == 0.8
        assert session.scalar(select(func.count()).select_from(Detour)) == 3
        photo = session.scalars(select(Photo)).one()
        assert (photo.width, photo.height) == (40, 60)  # upright still
        # Laid out anew only where the order is another, and never the one that searches use.
        past = session.scalars(select(ImageIndex).filter_by(state="past")).all()
        assert len(past) == (1 if permuted else 0)
        assert get_current_index(session, search.collection_id).id == before
        assert len(list_indexes(session, search.collection_id)) == 1
        # It goes on there.
        grid = current_grid(session, search, search.owner)
        assert grid.people_here == []
        goes_on = [card.image_id for card in grid.cards]
        searching.submit_answers(
            session,
            search,
            person=search.owner,
            round_id=grid.round_id,
            values=dict.fromkeys(goes_on, "no"),
            rest_are_no=False,
            gesture_key=None,
            indexes=indexes,
        )
        assert session.get_one(Round, search.current_round_id).index_id == before
        undo(session, search, person=search.owner, gesture_key=None)


def refuse(hunt, settings, data, collection, error, match):
    counts = [hunt.session.scalar(select(func.count()).select_from(Search))]
    with (
        Readers(settings) as readers,
        pytest.raises(error, match=match),
        hunt.session.begin_nested(),
    ):
        import_search(
            hunt.session,
            hunt.person,
            collection,
            data,
            indexes=hunt.indexes,
            settings=settings,
            now=NOW,
            readers=readers,
        )
    assert [hunt.session.scalar(select(func.count()).select_from(Search))] == counts


def test_tags_and_notes_come_along_and_once(hunt, settings, readers, tmp_path, other_database):
    """Those on the search, and on images that it says something of; with author and time."""
    me, pictures = hunt.search.owner, hunt.images
    add_tags(hunt.session, me, hunt.search, "pilot")
    write_note(hunt.session, me, hunt.search, "For the report")
    add_tags(hunt.session, me, pictures[1], "wet, fog")
    take_tag_off(hunt.session, me, pictures[1], "fog")
    note_id = write_note(hunt.session, me, pictures[1], "Two")
    change_note(hunt.session, me, pictures[1], note_id, "Three")
    remove_note(hunt.session, me, pictures[1], write_note(hunt.session, me, pictures[1], "Gone"))
    far = next(one for one in reversed(pictures) if not read_answer(hunt, one))
    write_note(hunt.session, me, far, "Nothing to do with this search")
    own = read_remarks(hunt.session, pictures[1])
    for picture in (pictures[2], pictures[4]):  # hidden here; and there
        add_tags(hunt.session, me, picture, "ranger")
        write_note(hunt.session, me, picture, "The ranger, at the gate")
    hide_people(hunt.session, hunt.search.collection_id, [pictures[2].id], person=me)
    data = write_bundle(hunt, settings)
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        assert bundle.read("search.json").count(b"ranger") == 2  # of one image
    there = settings.model_copy(update={"home": tmp_path / "there"})
    indexes = OpenIndexes(there)
    with other_database.session() as session:
        person = make_person(session, name="Cleo")
        collection = make_other_collection(session, there, hunt, order=np.arange(200))
        same = select(Image.id).filter_by(sha256=pictures[4].sha256)
        hide_people(session, collection.id, session.scalars(same).all(), person=person)
        for _ in range(2):
            search = import_search(
                session,
                person,
                collection,
                data,
                indexes=indexes,
                settings=there,
                now=NOW,
                readers=readers,
            )
            remarks = read_remarks(session, search)
            assert remarks.tags == ["pilot"]
            assert [note.text for note in remarks.notes] == ["For the report"]
        found = read_remarks_of_images(session, list(hash_images(session)))
        (remarks,) = found.values()
        assert remarks.tags == ["wet"]
        (note,) = remarks.notes
        assert (note.text, note.who, note.at) == ("Three", "me (from a file)", own.notes[0].at)


def test_search_with_a_filter_repeats_and_goes_on_with_it(
    session, settings, readers, tmp_path, other_database
):
    hunt = Hunt(session, settings)
    for number, image in enumerate(hunt.images):
        image.sha256 = f"{number:064x}"
        image.captured_at = datetime(2026, 4, 1) + timedelta(days=number % 60)
    hunt.submit()
    for month in (4, 5):
        chosen = Filter((("from", f"2026-0{month}-01"), ("to", f"2026-0{month}-28")))
        filter_search(session, hunt.search, chosen)
        hunt.submit()
    hunt.take("estimate", 18)
    hunt.submit()
    data = write_bundle(hunt, settings)
    there = settings.model_copy(update={"home": tmp_path / "there"})
    indexes = OpenIndexes(there)
    with other_database.session() as other:
        person = make_person(other, name="Cleo")
        collection = make_other_collection(other, there, hunt, order=np.arange(199, -1, -1))

        def bring():
            with other.begin_nested():
                return import_search(
                    other,
                    person,
                    collection,
                    data,
                    indexes=indexes,
                    settings=there,
                    now=NOW,
                    readers=readers,
                )

        with pytest.raises(BadInput, match="has a filter that can't be used in this collection"):
            bring()  # no image has a date here
        days = {image.sha256: image.captured_at for image in hunt.images}
        for image in other.scalars(select(Image).filter_by(collection_id=collection.id)):
            image.captured_at = days[image.sha256]
        search = bring()
        repeated = repeat_rounds(other, search, indexes, at_most=99)
        assert repeated.same == repeated.total > 4
        assert search.filter == [["from", "2026-05-01"], ["to", "2026-05-28"]]
        pools = other.scalars(select(Pool).order_by(Pool.id)).all()
        assert [pool.filter[0][1] for pool in pools] == ["2026-04-01", "2026-05-01"]
        searching.take_detour(
            other,
            search,
            person=person,
            kind=None,
            size=0,
            anchor_image_id=None,
            embedder=None,
            gesture_key=None,
            indexes=indexes,
        )
        shown = [card.image_id for card in current_grid(other, search, person).cards]
        assert {other.get_one(Image, one).captured_at.month for one in shown} == {5}
        # The same images are kept, so it is the same pool.
        assert other.scalar(select(func.count()).select_from(Pool)) == 2


def read_answer(hunt, image):
    return read_current_answers(hunt.session, hunt.search, with_removed=True).get(image.id)


def test_collection_without_the_images_or_their_vectors_is_refused(hunt, settings):
    data = write_bundle(hunt, settings)
    less = make_other_collection(hunt.session, settings, hunt, order=np.arange(200), but=2)
    missing = r"2 of the 200 images of this search are not in Same pond: .*IMG_0198.jpg"
    refuse(hunt, settings, data, less, BadInput, missing)
    less.name, hunt_name = "Less", hunt.search.collection.name
    hunt.session.scalar(select(Person))
    collection = make_collection(hunt.session, name=f"{hunt_name} of another model")
    images = make_images(hunt.session, collection, 200)
    for image, own in zip(images, hunt.images, strict=True):
        image.sha256 = own.sha256
    hunt.session.flush()
    make_index(hunt.session, settings, images, revision="2")
    refuse(hunt, settings, data, collection, EmbedderMismatch, "not prepared with 1 for all images")


@pytest.mark.slow
def test_file_that_was_tampered_with_is_refused(hunt, settings):
    data = write_bundle(hunt, settings)
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        kept = json.loads(bundle.read("search.json"))
        photos = {name: bundle.read(name) for name in bundle.namelist() if name != "search.json"}
    assert len(photos) == 1
    collection = hunt.search.collection

    def change(change):
        changed = json.loads(json.dumps(kept))
        change(changed)
        written = io.BytesIO()
        with zipfile.ZipFile(written, "w") as bundle:
            bundle.writestr("search.json", json.dumps(changed))
            for name, content in photos.items():
                bundle.writestr(name, content)
        return written.getvalue()

    for tampered in (
        b"",
        data[:-200],
        change(lambda it: it.update(version=2)),
        change(lambda it: it.update(more=1)),
        change(lambda it: it.update(strategy="mine")),
        change(lambda it: it.update(target_name="  ")),
        change(lambda it: it.update(round_size=5_000)),
        change(lambda it: it["answers"][0].update(value="maybe")),
        change(lambda it: it["answers"][0].update(image_id=987_654)),
        change(lambda it: it["answers"][0].update(reason="too-poor")),  # of a yes
        change(lambda it: it["rounds"][-1].update(leased_ids=[987_654])),
        change(lambda it: it.update(no_reasons=["empty"])),
        change(lambda it: it.update(seats=[])),
        change(lambda it: it["seats"][0].update(round_id=987_654)),
        change(lambda it: it["card"][0].update(image_id=987_654)),
        change(lambda it: it["answers"].reverse()),
        change(lambda it: it["rounds"][1].update(previous_id=987_654)),
        change(lambda it: it["rounds"][1].update(head_weights="AAAA")),
        change(lambda it: it["rounds"][1].update(head_bias=None)),
        change(lambda it: it["rounds"][1].update(seed=-1)),
        change(lambda it: it["goals"][0].update(rule="mine")),
        change(lambda it: it["actions"][1].update(kind="undo", reverses_id=it["actions"][0]["id"])),
        change(lambda it: it["actions"][2].update(kind="submit", next_round_id=None)),
        change(lambda it: it["rounds"][1]["images"][0].update(position=1)),
        change(lambda it: it["rounds"][1]["images"][0].update(reason="<b>")),
        change(lambda it: it["examples"][-1]["vectors"][0].update(vector="AAAA")),
        change(lambda it: it["examples"][-1].update(words=None)),
        change(lambda it: it["actions"][0].update(person="x\x00")),
        change(lambda it: it["indexes"][0]["image_ids"].append(it["images"][0]["id"])),
        change(lambda it: it["details"].update(licence="mine")),
    ):
        refuse(hunt, settings, tampered, collection, BadInput, ".")
    assert len(json.dumps(kept)) < MOST_BYTES
    photos = dict.fromkeys(photos, b"no photo")
    refuse(hunt, settings, change(dict.copy), collection, BadInput, ".")


def test_import_that_fails_late_leaves_no_files(hunt, settings):
    """The vectors were laid out in the file's order by then."""
    with zipfile.ZipFile(io.BytesIO(write_bundle(hunt, settings))) as bundle:
        kept = json.loads(bundle.read("search.json"))
    kept["examples"] = kept["examples"][:1]
    kept["indexes"][0]["image_ids"].reverse()
    kept["actions"][0]["round_id"] = 987_654
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as bundle:
        bundle.writestr("search.json", json.dumps(kept))
    before = sorted((settings.home / "indexes").iterdir())
    refuse(hunt, settings, written.getvalue(), hunt.search.collection, BadInput, "fit together")
    assert sorted((settings.home / "indexes").iterdir()) == before
