"""Removing images: left out everywhere at once, kept whole, put back with all that stood on it."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from app import browsing, removing, searching
from app.answers import read_current_answers
from app.chores import do_update
from app.collecting import describe_collection, list_collections
from app.dashboards.found import tell_found
from app.dashboards.moments import open_moment
from app.database import Database
from app.errors import BadInput
from app.exports.rows import export_rows
from app.history import list_history
from app.importing import import_images
from app.indexing import LoadedEmbedders, OpenIndexes, build_index
from app.jobs import add_job
from app.premises import list_left_out
from app.reporting import current_grid, list_examples, upcoming_images
from app.results import list_results
from app.rounds import repeat_round
from app.security import get_local_person
from app.sensitive import EXACT, hide_people
from app.settings import Settings
from app.steps import undo
from app.tables import Answer, Image, ImageIndex, ImagePath, Person, Round, RoundImage, Search
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person
from tests.stand_ins import HashEmbedder, register


@pytest.fixture
def person(session: Session) -> Person:
    return make_person(session)


@pytest.fixture
def images(session: Session) -> list[Image]:
    return make_images(session, make_collection(session), 100)


@pytest.fixture
def index(session: Session, settings: Settings, images: list[Image]) -> ImageIndex:
    return make_index(session, settings, images)


@pytest.fixture
def indexes(settings: Settings) -> OpenIndexes:
    return OpenIndexes(settings)


@pytest.fixture
def search(
    session: Session,
    settings: Settings,
    person: Person,
    images: list[Image],
    index: ImageIndex,
    indexes: OpenIndexes,
) -> Search:
    return searching.open_search(
        session,
        person=person,
        collection_id=index.collection_id,
        target_name="Grey heron",
        strategy="pf-ma",
        round_size=6,
        image_ids=[images[0].id, images[1].id],
        photo_ids=[],
        seed=1,
        indexes=indexes,
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
    )


def shown(session: Session, search: Search) -> list[int]:
    return [card.image_id for card in current_grid(session, search, search.owner).cards]


def submit(
    session: Session, search: Search, indexes: OpenIndexes, values: dict[int, str | None]
) -> None:
    searching.submit_answers(
        session,
        search,
        person=session.get_one(Person, search.owner_id),
        round_id=current_grid(session, search, search.owner).round_id,
        values=values,
        rest_are_no=True,
        gesture_key=None,
        indexes=indexes,
    )


def assert_rounds_repeat(session: Session, search: Search, indexes: OpenIndexes) -> None:
    for made in session.scalars(select(Round).filter_by(search_id=search.id).order_by(Round.id)):
        stored = session.scalars(
            select(RoundImage.image_id).filter_by(round_id=made.id).order_by(RoundImage.position)
        ).all()
        again = repeat_round(session, made, indexes)
        held = indexes.get(session.get_one(ImageIndex, made.index_id)).image_ids
        assert held[again.rows].tolist() == list(stored)


def test_many_removed_and_hidden_images_are_no_many_rows(
    session: Session,
    search: Search,
    indexes: OpenIndexes,
    images: list[Image],
    index: ImageIndex,
    person: Person,
) -> None:
    """A detector may hide a hundred thousand: each round, page of results and history asks."""
    removing.remove_images(session, search.collection_id, [images[7].id], person=person)
    gone = [image.id for image in images[20:60]]
    hide_people(session, search.collection_id, [*gone, images[0].id], person=person)
    rows = []

    def count(_connection: Any, cursor: Any, *_: Any) -> None:
        rows.append(cursor.rowcount)

    assert session.bind is not None
    event.listen(session.bind, "after_cursor_execute", count)
    try:
        held = list_left_out(session, search.collection_id, indexes.get(index))
        history = list_history(session, search, page=1)
    finally:
        event.remove(session.bind, "after_cursor_execute", count)
    assert held == sorted([images[0].id, images[7].id, *gone])
    assert [pair[0] for pair in history.events[-1].images] == [images[1].id]
    assert max(rows) < len(gone)


def test_a_search_goes_on_without_removed_images_and_repeats_its_rounds(
    session: Session,
    settings: Settings,
    search: Search,
    indexes: OpenIndexes,
    images: list[Image],
    person: Person,
) -> None:
    collection_id = search.collection_id
    first = shown(session, search)
    submit(session, search, indexes, {first[0]: "yes", first[1]: "yes"})
    second = shown(session, search)
    coming = upcoming_images(session, search, search.owner, indexes)
    # A yes of before, one on screen, one that would come next, and an example.
    gone = [first[0], second[0], coming[0], images[0].id]
    assert removing.describe_removal(session, collection_id, gone).answer_count == 2
    assert removing.remove_images(session, collection_id, gone, person=person) == 4
    assert removing.remove_images(session, collection_id, gone, person=person) == 0

    assert shown(session, search) == second[1:]
    assert not set(upcoming_images(session, search, search.owner, indexes)) & set(gone)
    assert current_grid(session, search, search.owner).found == 2  # of four
    now = open_moment(session, search, indexes, None)
    assert tell_found(now).positives == 2
    assert not set(gone) & set(now.index.image_ids[now.answers.positives].tolist())
    found = list_results(session, search, show="yes", page=1, indexes=indexes)
    assert {card.image_id for card in found.cards} == {first[1], images[1].id}
    paths = [row.path for row in export_rows(session, search, indexes, sight=EXACT)]
    assert images[0].path not in paths
    assert [example.image_id for example in list_examples(session, search)] == [images[1].id]
    # A page that was open still sends an answer on it: no harm, and the rest are no without it.
    submit(session, search, indexes, {second[1]: "yes"})
    answered = session.scalars(select(Answer.image_id).where(Answer.value == "no")).all()
    assert second[0] not in answered
    for _ in range(3):  # from the index that still holds them
        assert not set(shown(session, search)) & set(gone)
        submit(session, search, indexes, {})
    assert_rounds_repeat(session, search, indexes)

    kept = [image for image in images if image.id not in gone]
    make_index(session, settings, kept)  # the next index, without them
    submit(session, search, indexes, {})
    assert session.get_one(Round, search.current_round_id).left_out_ids is None
    assert_rounds_repeat(session, search, indexes)

    removing.put_back_images(session, collection_id, gone, person=person)
    assert current_grid(session, search, search.owner).found >= 4
    assert first[0] in read_current_answers(session, search)
    assert_rounds_repeat(session, search, indexes)
    assert session.scalar(select(func.count()).select_from(Image)) == 100


def test_undo_of_an_answer_on_a_removed_image_keeps_what_stood(
    session: Session, search: Search, indexes: OpenIndexes, person: Person
) -> None:
    image_id = shown(session, search)[0]
    for value in ("yes", "no"):
        searching.record_answers(
            session,
            search,
            person=person,
            round_id=current_grid(session, search, search.owner).round_id,
            values={image_id: value},
            gesture_key=None,
        )
    removing.remove_images(session, search.collection_id, [image_id], person=person)
    undo(session, search, person=person, gesture_key=None)
    removing.put_back_images(session, search.collection_id, [image_id], person=person)
    assert read_current_answers(session, search)[image_id] == "yes"


def test_removed_images_are_in_no_list_and_no_count(
    session: Session,
    settings: Settings,
    images: list[Image],
    index: ImageIndex,
    indexes: OpenIndexes,
    person: Person,
) -> None:
    collection_id = index.collection_id
    for image in images:
        path = {"path": image.path, "size_bytes": 1, "modified_ns": 1}
        session.add(ImagePath(collection_id=collection_id, image_id=image.id, **path))
    session.flush()
    browsing.add_image_to_tray(session, person, collection_id, images[3].id)
    gone = {image.id for image in images[3:10]}
    removing.remove_images(session, collection_id, list(gone), person=person)
    kept = [image.id for image in images if image.id not in gone]

    page = browsing.list_images(session, collection_id, page=1)
    assert (page.total, [image.id for image in page.images]) == (93, kept[:60])
    assert not gone & {image.id for image in browsing.sample_images(session, collection_id, seed=1)}
    after = browsing.list_images_after(session, collection_id, image_id=0, at_most=200)
    assert [image.id for image in after] == kept
    assert browsing.find_by_name(session, collection_id, "IMG_0003.jpg").kind != "exact"
    assert browsing.suggest_names(session, collection_id, "IMG_0003") == []
    similar = browsing.find_similar(
        session,
        collection_id,
        images[0],
        indexes=indexes,
        embedders=LoadedEmbedders(settings, Readers(settings)),
        settings=settings,
    )
    assert not gone & {image.id for image, _ in similar}
    assert len(similar) == 60
    details = browsing.describe_image(session, collection_id, images[2].id)
    assert details.next_id == images[10].id
    assert browsing.list_tray(session, person, collection_id) == []
    with pytest.raises(BadInput, match="removed"):
        browsing.add_image_to_tray(session, person, collection_id, images[3].id)
    facts = describe_collection(session, collection_id)
    assert (facts.image_count, facts.removed_count, facts.duplicate_count) == (93, 7, 0)
    [summary] = list_collections(session, person, now=images[0].added_at)
    assert summary.image_count == 93
    listing = removing.list_removed(session, collection_id, page=9)
    assert ({image.id for image in listing.images}, listing.total) == (gone, 7)


def test_any_number_of_images_is_removed_with_few_parameters(
    session: Session, images: list[Image], person: Person
) -> None:
    counts: list[int] = []

    def count(*heard: Any) -> None:
        counts.append(len(heard[3]))

    image_ids = [image.id for image in images]
    event.listen(session.bind, "before_cursor_execute", count)
    removing.remove_images(session, images[0].collection_id, image_ids, person=person)
    removing.put_back_images(session, images[0].collection_id, image_ids, person=person)
    event.remove(session.bind, "before_cursor_execute", count)
    assert counts
    assert max(counts) < 20  # PostgreSQL takes at most 65,535


def test_a_list_with_a_slip_removes_nothing(
    session: Session, images: list[Image], person: Person
) -> None:
    collection_id = images[0].collection_id
    session.add(
        ImagePath(
            collection_id=collection_id,
            image_id=images[0].id,
            path=images[0].path,
            size_bytes=1,
            modified_ns=1,
        )
    )
    session.flush()
    found = removing.find_listed(session, collection_id, [f" {images[0].path} ", "", "\n"])
    assert found == [images[0].id]
    with pytest.raises(BadInput, match=r"no image nowhere\.jpg"):
        removing.find_listed(session, collection_id, [images[0].path, "nowhere.jpg"])
    with pytest.raises(BadInput, match="names no image"):
        removing.find_listed(session, collection_id, [" "])


def test_indexes_follow_without_embedding_and_imports_bring_nothing_back(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    embedder = HashEmbedder()
    register(monkeypatch, embedder)
    source = tmp_path / "source"
    source.mkdir()
    for number in range(6):
        noise = np.random.default_rng(number).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        PIL.Image.fromarray(noise).save(source / f"{number}.png")
    with database.session() as session:
        person = make_person(session)
        collection_id = make_collection(session).id
    import_images(database, collection_id, source, settings=settings, embedder="hash")
    build_index(database, collection_id, settings=settings, embedder="hash")
    with database.session() as session:
        gone = removing.find_listed(session, collection_id, ["1.png", "4.png"])
        removing.remove_images(session, collection_id, gone, person=person)
    row = build_index(database, collection_id, settings=settings, embedder="hash")
    assert (row.image_count, embedder.embedded_count) == (4, 6)
    assert not set(OpenIndexes(settings).get(row).image_ids.tolist()) & set(gone)
    assert build_index(database, collection_id, settings=settings, embedder="hash").id == row.id

    summary = import_images(database, collection_id, source, settings=settings, embedder="hash")
    assert (summary.known, summary.removed, summary.imported) == (6, 2, 0)
    source.rename(tmp_path / "moved")  # now they are read again, and known by their content
    moved = tmp_path / "moved"
    summary = import_images(database, collection_id, moved, settings=settings, embedder="hash")
    assert (summary.known, summary.removed, summary.imported) == (6, 2, 0)
    with database.session() as session:
        assert removing.count_removed(session, collection_id) == 2
        someone = get_local_person(session)
        assert removing.put_back_images(session, collection_id, gone, person=someone) == 2
    row = build_index(database, collection_id, settings=settings, embedder="hash")
    assert row.image_count == 6
    assert all((moved / f"{number}.png").exists() for number in range(6))


def test_removing_the_last_image_is_no_failed_work(own_database, settings, monkeypatch):
    register(monkeypatch, HashEmbedder())
    with own_database.session() as session:
        images = make_images(session, make_collection(session), 1)
        make_index(session, settings, images, embedder="hash", revision="hash:1")
        collection_id, me = images[0].collection_id, make_person(session)
        removing.remove_images(session, collection_id, [images[0].id], person=me)
        job = add_job(session, "update", collection_id=collection_id, person=me)
    do_update(own_database, settings, job, lambda *_: None)
