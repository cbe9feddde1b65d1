"""Detours: what they show, how they go on, end, are taken back, and are proposed again."""

import numpy as np
import pytest
from sqlalchemy import select

from app import removing, searching
from app.answers import read_current_answers
from app.engine.numerals import spaced
from app.errors import BadInput, NotFound
from app.indexing import LoadedEmbedders, OpenIndexes
from app.premises import list_detour_images, read_head, read_plan, recall_plan
from app.reporting import current_grid
from app.rounds import repeat_round
from app.steps import redo, undo
from app.tables import Detour, ImageIndex, Round, RoundImage
from app.workers import Readers
from tests.factories import make_collection, make_images, make_index, make_person


class Hunt:
    """A search of 200 images of which the first twenty are of the target."""

    def __init__(self, session, settings):
        self.session, self.person = session, make_person(session)
        collection = make_collection(session)
        self.images = make_images(session, collection, 200)
        self.row = make_index(session, settings, self.images)
        self.indexes = OpenIndexes(settings)
        self.index = self.indexes.get(self.row)
        self.targets = {image.id for image in self.images[:20]}
        self.search = searching.open_search(
            session,
            person=self.person,
            collection_id=collection.id,
            target_name="Heron",
            strategy="pf-ma",
            image_ids=[self.images[0].id],
            photo_ids=[],
            indexes=self.indexes,
            embedders=LoadedEmbedders(settings, Readers(settings)),
            settings=settings,
            round_size=12,
            seed=4,
        )

    def shown(self):
        return [
            card.image_id for card in current_grid(self.session, self.search, self.person).cards
        ]

    def submit(self):
        """Answer the grid as it is, then ask for the next."""
        values = {i: "yes" if i in self.targets else "no" for i in self.shown()}
        searching.submit_answers(
            self.session,
            self.search,
            person=self.person,
            round_id=self.search.current_round_id,
            values=values,
            rest_are_no=False,
            gesture_key=None,
            indexes=self.indexes,
        )

    def take(self, kind, size=0, anchor=None, key=None, embedder=None):
        searching.take_detour(
            self.session,
            self.search,
            person=self.person,
            kind=kind,
            size=size,
            anchor_image_id=anchor,
            embedder=embedder,
            gesture_key=key,
            indexes=self.indexes,
        )

    def undo(self):
        undo(self.session, self.search, person=self.person, gesture_key=None)

    def redo(self):
        redo(self.session, self.search, person=self.person, gesture_key=None)

    def answers(self):
        return read_current_answers(self.session, self.search)

    def made(self):
        return self.session.get_one(Round, self.search.current_round_id)


@pytest.fixture
def hunt(session, settings):
    hunt = Hunt(session, settings)
    hunt.submit()
    return hunt


def test_gap_is_the_next_grid_in_place_of_one_that_nobody_answered(hunt):
    before, number = hunt.shown(), hunt.made().number
    anchor = hunt.images[150].id
    similarities = hunt.index.vectors @ hunt.index.vectors[150]
    order = hunt.index.image_ids[np.argsort(-similarities)].tolist()
    expected = [i for i in order if i not in hunt.answers()][:12]
    hunt.take("gap", 12, anchor)
    assert hunt.shown() == expected
    assert hunt.shown()[0] == anchor
    assert hunt.made().number == number
    assert {card.reason for card in current_grid(hunt.session, hunt.search, hunt.person).cards} == {
        "gap"
    }
    hunt.undo()
    assert hunt.shown() == before
    hunt.redo()
    assert hunt.shown() == expected
    hunt.submit()
    assert hunt.made().detour_id is None
    assert hunt.made().number == number + 1


def test_grid_with_an_answer_counts_as_submitted(hunt):
    first, number = hunt.shown()[0], hunt.made().number
    searching.record_answers(
        hunt.session,
        hunt.search,
        person=hunt.person,
        round_id=hunt.search.current_round_id,
        values={first: "yes"},
        gesture_key=None,
    )
    before = hunt.search.current_round_id
    hunt.take("absence", 24)
    assert hunt.made().previous_id == before
    assert hunt.made().number == number + 1


def test_sample_goes_on_in_its_order_until_all_of_it_was_shown(hunt):
    hunt.take("estimate", 30)
    detour = hunt.session.scalars(select(Detour)).one()
    plan, index = read_plan(hunt.session, hunt.search, detour, hunt.indexes)
    expected = index.image_ids[plan.rows].tolist()
    assert len(expected) == 30
    seen = []
    for _ in range(3):
        assert hunt.made().detour_id == detour.id
        seen += hunt.shown()
        hunt.submit()
    assert seen == expected
    assert hunt.made().detour_id is None
    previous = hunt.made().previous_id
    assert list_detour_images(hunt.session, detour.id, previous) == expected


def test_sample_ends_when_asked_and_keeps_its_answers(hunt):
    hunt.take("absence", 60)
    hunt.submit()
    answered = hunt.answers()
    hunt.take(None)
    assert hunt.made().detour_id is None
    assert hunt.answers() == answered
    assert not set(hunt.shown()) & set(answered)


def test_double_click_takes_one_detour(hunt):
    hunt.take("absence", 60, key="a")
    made = hunt.made().id
    hunt.take("absence", 60, key="a")
    assert hunt.made().id == made


def test_same_place_gives_the_same_sample_again(hunt):
    """Nobody may draw until they like what they see."""
    hunt.take("absence", 60)
    first = hunt.shown()
    hunt.undo()
    hunt.take("absence", 60)
    assert hunt.shown() == first


def test_removed_images_are_in_no_plan_and_a_plan_is_made_the_same_again(hunt):
    gone = [hunt.images[number].id for number in (3, 40, 150)]
    collection_id = hunt.search.collection_id
    removing.remove_images(hunt.session, collection_id, gone, person=hunt.person)
    hunt.take("absence", 500)
    detour = hunt.session.scalars(select(Detour)).one()
    planned = recall_plan(hunt.session, hunt.search, detour, hunt.indexes).image_ids
    assert detour.left_out_ids == gone
    assert set(planned) == {image.id for image in hunt.images} - set(hunt.answers()) - set(gone)
    removing.put_back_images(hunt.session, collection_id, gone, person=hunt.person)
    plan, index = read_plan(hunt.session, hunt.search, detour, hunt.indexes)
    assert index.image_ids[plan.rows].tolist() == planned.tolist()


def prepare_otherwise(hunt, settings):
    """Another embedder's index, in another order: it likens ten more images to the target."""
    vectors = np.random.default_rng(8).normal(size=(200, 24))
    vectors[:20] += 3
    vectors[100:110] += 3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = np.random.default_rng(9).permutation(200)
    images = [hunt.images[place] for place in order]
    make_index(
        hunt.session, settings, images, vectors[order].astype(np.float32), embedder="other-eyes"
    )


def test_another_embedder_shows_what_it_holds_likely_and_the_search_does_not(hunt, settings):
    prepare_otherwise(hunt, settings)
    before = hunt.shown()
    head = read_head(hunt.made())
    scores = hunt.index.scores(head.weights, head.bias)
    unlikely = {image.id for image in hunt.images[100:110] if scores[hunt.images.index(image)] < 0}
    hunt.take("other-embedder", 12, embedder="other-eyes")
    shown = hunt.shown()
    assert len(unlikely) >= 6
    assert set(shown[: len(unlikely)]) == unlikely
    assert not set(shown) & hunt.targets  # those the search knows are likely itself
    assert {card.reason for card in current_grid(hunt.session, hunt.search, hunt.person).cards} == {
        "other-embedder"
    }
    hunt.undo()
    assert hunt.shown() == before
    hunt.redo()
    assert hunt.shown() == shown
    for embedder in ("hand-made", "guess", None):
        with pytest.raises(BadInput):
            hunt.take("other-embedder", 12, embedder=embedder)


def test_every_round_of_detours_is_proposed_again_image_for_image(hunt, settings):
    """Live equals replay, also where the collection grew in the middle of a sample."""
    prepare_otherwise(hunt, settings)
    hunt.take("estimate", 30)
    hunt.submit()
    make_index(hunt.session, settings, hunt.images[:190], hunt.index.vectors[:190])
    hunt.submit()
    hunt.take("gap", 12, hunt.images[60].id)
    hunt.submit()
    hunt.take("second-look", 20)
    hunt.submit()
    hunt.submit()
    hunt.take("other-embedder", 18, embedder="other-eyes")
    hunt.submit()
    hunt.submit()
    hunt.take("absence", 12)
    hunt.submit()
    rounds = hunt.session.scalars(select(Round).order_by(Round.id)).all()
    assert sum(made.detour_id is not None for made in rounds) >= 8
    # By the plans that were kept, and planned anew as detours of earlier versions are.
    propose_again(hunt, rounds)
    for detour in hunt.session.scalars(select(Detour)):
        kept = recall_plan(hunt.session, hunt.search, detour, hunt.indexes)
        detour.planned_image_ids = detour.seen_again = detour.beside_count = None
        anew = recall_plan(hunt.session, hunt.search, detour, hunt.indexes)
        assert kept.image_ids.tolist() == anew.image_ids.tolist()
        assert (kept.seen_again, kept.beside_count) == (anew.seen_again, anew.beside_count)
    hunt.session.flush()
    propose_again(hunt, rounds)


def propose_again(hunt, rounds):
    for made in rounds:
        stored = hunt.session.scalars(
            select(RoundImage.image_id).filter_by(round_id=made.id).order_by(RoundImage.position)
        ).all()
        index = hunt.indexes.get(hunt.session.get_one(ImageIndex, made.index_id))
        again = repeat_round(hunt.session, made, hunt.indexes)
        assert index.image_ids[again.rows].tolist() == stored
        assert (again.head is None) == (made.head_bias is None)


def test_what_cannot_be_taken_is_said(hunt, session, settings):
    with pytest.raises(BadInput, match="no such way"):
        hunt.take("guess", 12)
    with pytest.raises(BadInput, match="from 6"):
        hunt.take("absence", 5)
    for kind, most in (("second-look", 200), ("estimate", 1_000), ("absence", 100_000)):
        with pytest.raises(BadInput, match=f"from 6 to {spaced(most)} images"):
            hunt.take(kind, most + 1)
    with pytest.raises(NotFound, match="gap"):
        hunt.take("gap", 12, 10**9)
    hunt.undo()  # of the submit: the first round has no head
    with pytest.raises(BadInput, match="yes in it"):
        hunt.take("estimate", 100)
