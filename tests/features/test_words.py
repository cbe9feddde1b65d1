"""Searches opened by words, several indexes side by side, and moving from one to another."""

import io
from dataclasses import dataclass

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import searching
from app.adjusting import move_search
from app.answers import read_current_answers
from app.browsing import add_photo_to_tray, find_by_words, find_similar
from app.database import Database
from app.engine.index import open_index
from app.engine.words import embed_words
from app.errors import BadInput, IndexNotUsable, NoWords
from app.history import list_history
from app.indexes import (
    choose_index,
    list_builds,
    list_collections_with_words,
    list_indexes,
    list_more_embedders,
    prepare_index,
    update_indexes,
)
from app.indexing import LoadedEmbedders, OpenIndexes, build_index, combine_indexes
from app.premises import read_head
from app.reporting import current_grid
from app.rounds import repeat_round
from app.settings import Settings
from app.steps import redo, undo
from app.tables import (
    Collection,
    ExampleVector,
    Image,
    ImageIndex,
    Person,
    Photo,
    Round,
    RoundImage,
    Search,
)
from app.workers import Readers
from tests.factories import (
    make_collection,
    make_image_file,
    make_images,
    make_index,
    make_person,
    make_picture,
    make_vectors,
)
from tests.stand_ins import DirectionEmbedder, HashEmbedder, register

COUNT, HERONS = 100, 10  # make_vectors: the first tenth are alike


@dataclass
class Pond:
    """A collection prepared by an embedder that knows words, and by one that knows none."""

    database: Database
    session: Session
    settings: Settings
    person: Person
    collection: Collection
    images: list[Image]
    indexes: OpenIndexes
    embedders: LoadedEmbedders

    def open(self, **given) -> Search:
        return searching.open_search(
            self.session,
            person=self.person,
            collection_id=self.collection.id,
            target_name="Grey heron",
            round_size=6,
            indexes=self.indexes,
            embedders=self.embedders,
            settings=self.settings,
            **{"image_ids": [], "photo_ids": []} | given,
        )

    def move(self, search: Search, embedder: str) -> None:
        move_search(
            self.session,
            search,
            embedder=embedder,
            indexes=self.indexes,
            embedders=self.embedders,
            settings=self.settings,
        )

    def submit(self, search: Search, values=None) -> None:
        searching.submit_answers(
            self.session,
            search,
            person=self.person,
            round_id=search.current_round_id,
            values=values or {},
            rest_are_no=True,
            gesture_key=None,
            indexes=self.indexes,
        )

    def shown(self, search: Search) -> list[int]:
        return [card.image_id for card in current_grid(self.session, search, self.person).cards]

    def answer_truly(self, search: Search) -> None:
        herons = {image.id for image in self.images[:HERONS]}
        self.submit(search, {one: "yes" for one in self.shown(search) if one in herons})

    def index_of(self, search: Search) -> str:
        made = self.session.get_one(Round, search.current_round_id)
        return self.session.get_one(ImageIndex, made.index_id).embedder

    def add_photo(self) -> Photo:
        file = io.BytesIO()
        make_picture(7).save(file, "PNG")
        return add_photo_to_tray(
            self.session,
            self.person,
            self.collection.id,
            name="mine.png",
            data=file.getvalue(),
            settings=self.settings,
            readers=self.embedders.readers,
        )


@pytest.fixture
def pond(database, session, settings, monkeypatch) -> Pond:
    collection = make_collection(session)
    images = make_images(session, collection, COUNT)
    sees, reads = make_vectors(COUNT, dimension=24, seed=1), make_vectors(COUNT)
    make_index(session, settings, images, sees, embedder="hash", revision="hash:1")
    words = {"heron": reads[:HERONS].mean(axis=0), "newt": reads[50]}
    register(monkeypatch, DirectionEmbedder("reader", words))
    register(monkeypatch, HashEmbedder())
    make_index(
        session, settings, images, reads, embedder="reader", revision="reader:1", knows_words=True
    )
    return Pond(
        database,
        session,
        settings,
        make_person(session),
        collection,
        images,
        OpenIndexes(settings),
        LoadedEmbedders(settings, Readers(settings)),
    )


def assert_rounds_repeat(pond: Pond, search: Search) -> None:
    """The contract: every stored round is proposed again, image for image."""
    rounds = pond.session.scalars(select(Round).filter_by(search_id=search.id)).all()
    for made in rounds:
        stored = pond.session.scalars(
            select(RoundImage).filter_by(round_id=made.id).order_by(RoundImage.position)
        ).all()
        again = repeat_round(pond.session, made, pond.indexes)
        index = pond.indexes.get(pond.session.get_one(ImageIndex, made.index_id))
        assert index.image_ids[again.rows].tolist() == [place.image_id for place in stored]
        assert again.scores.tolist() == pytest.approx([one.score for one in stored], abs=1e-6)


def test_words_open_a_search_with_the_images_that_fit(pond):
    search = pond.open(words="  grey heron ")
    assert set(pond.shown(search)) <= {image.id for image in pond.images[:HERONS]}
    assert read_current_answers(pond.session, search) == {}
    assert search.embedder == "reader"
    index = pond.indexes.get(choose_index(pond.session, pond.collection.id, embedder="reader"))
    embedder = pond.embedders.get(choose_index(pond.session, pond.collection.id, words="x"))
    nearest = index.nearest(embed_words("grey heron", embedder.embed_text)[np.newaxis], 6)[1][0]
    assert pond.shown(search) == index.image_ids[nearest].tolist()
    (opened,) = list_history(pond.session, search, page=1).events
    assert opened.sentence == "Opened the search with the words “grey heron”"


def test_words_lead_on_down_their_list_until_something_is_yes(pond):
    search = pond.open(words="newt")
    index = pond.indexes.get(choose_index(pond.session, pond.collection.id, embedder="reader"))
    order = index.image_ids[np.argsort(-index.similarities(index.vectors[50]))].tolist()
    first = pond.shown(search)
    assert first[0] == pond.images[50].id
    pond.submit(search)
    assert current_grid(pond.session, search, pond.person).has_head is False
    assert set(first + pond.shown(search)) <= set(order[:16])  # the words' own nudge aside
    pond.submit(search, {pond.shown(search)[0]: "yes"})
    assert current_grid(pond.session, search, pond.person).has_head is True
    assert_rounds_repeat(pond, search)


def test_words_and_examples_open_together_and_repeat(pond):
    example = pond.images[60].id
    both = pond.open(words="heron", image_ids=[example])
    words, image = pond.open(words="heron"), pond.open(image_ids=[example], embedder="reader")
    assert read_current_answers(pond.session, both) == {example: "yes"}
    assert pond.shown(both) not in (pond.shown(words), pond.shown(image))
    assert set(pond.shown(both)) & set(pond.shown(words))
    for search in (both, words, image):
        for _ in range(3):
            pond.answer_truly(search)
        assert_rounds_repeat(pond, search)
    (opened,) = [
        event
        for event in list_history(pond.session, both, page=1).events
        if event.kind == "example"
    ]
    assert (
        opened.sentence == "Opened the search with 1 image of the collection and the words “heron”"
    )


def test_words_where_none_are_known_say_what_would_do(pond):
    with pytest.raises(NoWords, match=r"hash knows no words\. For a search by words choose reader"):
        pond.open(words="heron", embedder="hash")
    pond.session.get_one(
        ImageIndex, choose_index(pond.session, pond.collection.id, words="x").id
    ).state = "failed"
    with pytest.raises(NoWords, match=r"hash, which knows no words\. Open the search with ex"):
        pond.open(words="heron")
    with pytest.raises(BadInput, match="example"):
        pond.open()
    with pytest.raises(BadInput, match="not prepared with eagle-eye"):
        pond.open(image_ids=[pond.images[0].id], embedder="eagle-eye")
    with pytest.raises(BadInput, match="longer than"):
        pond.open(words="heron " * 100)
    assert pond.session.scalar(select(func.count(Search.id))) == 0


def test_indexes_stand_side_by_side_the_newest_of_each_embedder(pond):
    again = make_index(
        pond.session,
        pond.settings,
        pond.images[:50],
        embedder="hash",
        revision="hash:1",
    )
    choices = list_indexes(pond.session, pond.collection.id)
    assert [(one.embedder, one.image_count, one.knows_words) for one in choices] == [
        ("hash", 50, False),
        ("reader", 100, True),
    ]
    assert choose_index(pond.session, pond.collection.id).id == again.id
    assert choose_index(pond.session, pond.collection.id, words="heron").embedder == "reader"
    assert list_collections_with_words(pond.session, pond.person) == [pond.collection]
    more = [
        one.name for one in list_more_embedders(pond.session, pond.collection.id, pond.settings)
    ]
    assert "efficientnet-lite0" in more and not {"hash", "reader"} & set(more)


def test_moved_search_keeps_its_answers_and_finds_by_the_other_index(pond):
    photo = pond.add_photo()
    search = pond.open(words="heron", photo_ids=[photo.id])
    pond.answer_truly(search)
    answers = read_current_answers(pond.session, search)
    before = pond.shown(search)
    pond.move(search, "hash")
    assert pond.shown(search) == before, "the grid being answered stays"
    assert read_current_answers(pond.session, search) == answers
    pond.answer_truly(search)
    assert pond.index_of(search) == "hash"
    made = pond.session.get_one(Round, search.current_round_id)
    assert len(read_head(made).weights) == 24
    of_photo = select(ExampleVector.revision).order_by(ExampleVector.revision)
    assert list(pond.session.scalars(of_photo)) == ["hash:1", "reader:1", "reader:1"]
    pond.move(search, "reader")
    pond.answer_truly(search)
    assert pond.index_of(search) == "reader"
    assert_rounds_repeat(pond, search)


def test_undo_and_redo_cross_a_move(pond):
    search = pond.open(words="heron")
    pond.answer_truly(search)
    grids = [pond.shown(search)]
    pond.move(search, "hash")
    pond.answer_truly(search)
    grids.append(pond.shown(search))
    undo(pond.session, search, person=pond.person, gesture_key=None)
    assert (pond.shown(search), pond.index_of(search)) == (grids[0], "reader")
    redo(pond.session, search, person=pond.person, gesture_key=None)
    assert (pond.shown(search), pond.index_of(search)) == (grids[1], "hash")
    undo(pond.session, search, person=pond.person, gesture_key=None)
    pond.answer_truly(search)
    assert pond.shown(search) == grids[1], "another branch, but from the same index and answers"
    assert_rounds_repeat(pond, search)


def test_search_of_words_alone_moves_to_an_index_without_once_something_is_found(pond):
    search = pond.open(words="heron")
    with pytest.raises(BadInput, match="Answer yes to an image first"):
        pond.move(search, "hash")
    assert search.embedder == "reader"
    pond.answer_truly(search)
    pond.move(search, "hash")
    pond.answer_truly(search)
    assert pond.index_of(search) == "hash"
    assert_rounds_repeat(pond, search)


def test_new_revision_leaves_the_words_behind_until_the_settings_are_saved(pond, monkeypatch):
    search = pond.open(words="heron")
    vectors = make_vectors(COUNT)
    newer = DirectionEmbedder("reader", {"heron": vectors[0]})
    newer.revision = "reader:2"
    register(monkeypatch, newer)
    pond.embedders = LoadedEmbedders(pond.settings, pond.embedders.readers)
    make_index(
        pond.session,
        pond.settings,
        pond.images,
        vectors,
        embedder="reader",
        revision="reader:2",
        knows_words=True,
    )
    with pytest.raises(IndexNotUsable, match="open the search's settings and save"):
        pond.submit(search)
    pond.session.expire(search)
    pond.move(search, "reader")
    pond.submit(search)
    assert current_grid(pond.session, search, pond.person).number == 2
    assert_rounds_repeat(pond, search)


def test_rounds_made_without_an_examples_vector_are_repeated_without_it(pond, monkeypatch):
    photo = pond.add_photo()
    search = pond.open(image_ids=[pond.images[0].id], photo_ids=[photo.id], embedder="hash")
    register(monkeypatch, HashEmbedder("hash:2"))
    pond.embedders = LoadedEmbedders(pond.settings, pond.embedders.readers)
    seen = make_vectors(COUNT, dimension=24, seed=2)
    make_index(pond.session, pond.settings, pond.images, seen, embedder="hash", revision="hash:2")
    pond.answer_truly(search)  # of the photo there is no vector by the newer revision
    pond.answer_truly(search)
    pond.move(search, "hash")
    pond.answer_truly(search)

    revisions = pond.session.scalars(select(ExampleVector.revision)).all()
    assert sorted(revisions) == ["hash:1", "hash:2"]
    assert_rounds_repeat(pond, search)


def test_combined_index_reads_words_in_its_part_and_photos_in_both(pond):
    made = combine_indexes(
        pond.database, pond.collection.id, "hash", "reader", settings=pond.settings
    )
    assert (made.embedder, made.state, made.dimension) == ("hash + reader", "ready", 40)
    assert made.knows_words and made.image_count == COUNT
    one, *_ = list_indexes(pond.session, pond.collection.id)
    assert one.embedder == "hash + reader" and one.is_combined and not one.is_stale
    by_words = pond.open(words="heron", embedder="hash + reader")
    assert pond.shown(by_words) == pond.shown(pond.open(words="heron", embedder="reader"))
    by_photo = pond.open(photo_ids=[pond.add_photo().id])
    assert pond.index_of(by_photo) == "hash + reader"
    for search in (by_words, by_photo):
        pond.answer_truly(search)
        pond.answer_truly(search)
        assert_rounds_repeat(pond, search)
    again = combine_indexes(
        pond.database, pond.collection.id, "hash", "reader", settings=pond.settings
    )
    assert again.id == made.id
    for is_named in (True, False):  # killed after its folder got its name, and before
        row = pond.session.get_one(ImageIndex, made.id)
        row.state = "building"
        pond.session.flush()
        folder = pond.settings.home / "indexes" / str(made.id)
        if not is_named:
            folder.rename(folder.with_name(f"{made.id}.building"))
        prepare_index(
            pond.database,
            pond.collection.id,
            embedder="hash + reader",
            settings=pond.settings,
        )
        pond.session.refresh(row)
        assert (row.state, row.id) == ("ready", made.id)
        assert open_index(folder, verify=True).count == COUNT
    for wrong in (("hash", "hash"), ("hash", "hash + reader")):
        with pytest.raises(BadInput, match="two different embedders"):
            combine_indexes(pond.database, pond.collection.id, *wrong, settings=pond.settings)


def test_browsing_by_words_is_paged_by_similarity(pond):
    def look(page: int):
        return find_by_words(
            pond.session,
            pond.collection.id,
            "heron",
            page=page,
            indexes=pond.indexes,
            embedders=pond.embedders,
        )

    first, second, beyond = look(1), look(2), look(9)
    assert {image.id for image in first.images[:9]} <= {image.id for image in pond.images[:10]}
    assert (first.pages, second.page, len(second.images), beyond.page) == (2, 2, 40, 2)
    figures = first.similarities + second.similarities
    assert figures == sorted(figures, reverse=True)
    assert len({image.id for image in first.images + second.images}) == COUNT


def test_likeness_of_a_photo_is_told_by_the_newest_index(pond):
    photo = pond.add_photo()
    found = find_similar(
        pond.session,
        pond.collection.id,
        photo,
        indexes=pond.indexes,
        embedders=pond.embedders,
        settings=pond.settings,
    )
    assert len(found) == 60


def test_added_images_reach_every_index_and_the_combined_one(
    own_database, settings, tmp_path, monkeypatch
):
    register(monkeypatch, HashEmbedder())
    register(monkeypatch, DirectionEmbedder("reader", {"heron": np.eye(16, dtype=np.float32)[0]}))

    def add(numbers: range) -> None:
        with own_database.session() as session:
            for number in numbers:
                file = make_image_file(tmp_path / f"{number}.jpg", number)
                session.add(
                    Image(
                        collection_id=collection_id,
                        sha256=f"{number:064x}",
                        path=file.name,
                        file=str(file),
                        size_bytes=file.stat().st_size,
                        format="JPEG",
                        width=60,
                        height=40,
                    )
                )

    def names_and_counts():
        with own_database.session() as session:
            choices = list_indexes(session, collection_id)
            assert list_builds(session, collection_id) == []
            assert not any(one.is_stale for one in choices)
            return {one.embedder: one.image_count for one in choices}

    with own_database.session() as session:
        collection_id = make_collection(session).id
    add(range(4))
    for embedder in ("hash", "reader"):
        build_index(own_database, collection_id, settings=settings, embedder=embedder)
    combine_indexes(own_database, collection_id, "reader", "hash", settings=settings)
    assert names_and_counts() == {"hash": 4, "reader": 4, "reader + hash": 4}
    add(range(4, 7))
    build_index(own_database, collection_id, settings=settings, embedder="hash")
    with own_database.session() as session:
        stale = [one.embedder for one in list_indexes(session, collection_id) if one.is_stale]
    assert stale == ["reader + hash"]
    update_indexes(own_database, collection_id, settings=settings)
    assert names_and_counts() == {"hash": 7, "reader": 7, "reader + hash": 7}
    with own_database.session() as session:
        count = session.scalar(select(func.count(ImageIndex.id)))
    update_indexes(own_database, collection_id, settings=settings)
    with own_database.session() as session:
        assert session.scalar(select(func.count(ImageIndex.id))) == count, "nothing was left to do"
