"""The target card, and reasons for a no: what trains the head, and what repeats."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.adjusting import change_search
from app.cards import MAX_CARD_IMAGES, change_card, list_reasons, put_on_card, read_card
from app.errors import BadInput, NotFound
from app.exports.rows import export_rows
from app.indexing import OpenIndexes
from app.reporting import current_grid
from app.rounds import repeat_round
from app.sensitive import EXACT
from app.settings import Settings
from app.tables import Image, ImageIndex, Round, RoundImage
from tests.factories import make_collection, make_images
from tests.features.test_together import Pair, open_pair


@pytest.fixture
def pair(session: Session, settings: Settings) -> Pair:
    return open_pair(session, settings, OpenIndexes(settings), 100)


def change(pair: Pair, *, no_reasons: list[str], learns_from_poor: bool) -> None:
    change_search(
        pair.session,
        pair.search,
        target_name="Heron",
        strategy="pf-ma",
        round_size=6,
        no_reasons=no_reasons,
        learns_from_poor=learns_from_poor,
    )


def read_head(pair: Pair) -> bytes | None:
    return pair.session.get_one(Round, pair.search.current_round_id).head_weights


def test_poor_and_empty_images_train_the_head_only_if_asked_and_rounds_repeat(pair: Pair):
    change(pair, no_reasons=[], learns_from_poor=False)
    first, *rest = pair.shown(pair.ada)
    heads = {}
    for name, value in {
        "unsure": "unsure",
        "poor": "no:too-poor",
        "empty": "no:empty",
        "other": "no:other-species",
        "no": "no",
    }.items():
        pair.submit(pair.ada, {first: "yes"} | dict.fromkeys(rest, value))
        heads[name] = read_head(pair)
        pair.undo(pair.ada)
        pair.undo(pair.ada)
    assert heads["unsure"] == heads["poor"] == heads["empty"]
    assert heads["other"] == heads["no"] != heads["unsure"]
    change(pair, no_reasons=[], learns_from_poor=True)
    pair.submit(pair.ada, {first: "yes"} | dict.fromkeys(rest, "no:too-poor"))
    assert read_head(pair) == heads["no"]
    change(pair, no_reasons=[], learns_from_poor=False)
    pair.submit(pair.ada)
    # Poor images count as no all the same, and are not shown again.
    assert {pair.answers()[image] for image in rest} == {"no"}
    for made in pair.session.scalars(select(Round)).all():
        again = repeat_round(pair.session, made, pair.indexes)
        stored = select(RoundImage.image_id).filter_by(round_id=made.id)
        held = pair.indexes.get(pair.session.get_one(ImageIndex, made.index_id)).image_ids
        shown = pair.session.scalars(stored.order_by(RoundImage.position)).all()
        assert held[again.rows].tolist() == list(shown)
        if again.head is not None:
            assert again.head.weights.tobytes() == made.head_weights


def test_a_reason_is_kept_changed_undone_and_exported(pair: Pair):
    change(pair, no_reasons=["Plastic bag", "", "Plastic bag"], learns_from_poor=False)
    assert list(list_reasons(pair.search).values())[3:] == ["Plastic bag"]
    first, second, *_ = pair.shown(pair.ada)
    pair.answer(pair.ada, {first: "no:Plastic bag", second: "no"})
    saved = pair.answer(pair.ada, {second: "no:empty"})
    assert saved.answers == {second: "no:empty"}
    pair.answer(pair.ada, {second: "no:too-poor"})
    pair.undo(pair.ada)
    reasons = {
        card.image_id: card.no_reason
        for card in current_grid(pair.session, pair.search, pair.ada).cards
    }
    assert (reasons[first], reasons[second]) == ("Plastic bag", "empty")
    rows = {
        row.answer: row for row in export_rows(pair.session, pair.search, pair.indexes, sight=EXACT)
    }
    assert rows["no"].no_because in ("Plastic bag", "empty")
    assert rows["yes"].no_because is None


@pytest.mark.parametrize("value", ["no:luck", "yes:empty", "no:Plastic bag", "maybe"])
def test_reasons_that_the_search_does_not_know_are_refused(pair: Pair, value: str):
    first, *_ = pair.shown(pair.ada)
    with pytest.raises(BadInput):
        pair.answer(pair.ada, {first: value})


def test_more_reasons_than_keys_are_refused(pair: Pair):
    with pytest.raises(BadInput, match="keys for 6"):
        change(pair, no_reasons=[f"reason {n}" for n in range(7)], learns_from_poor=False)


def test_card_has_words_and_pictures_of_both(pair: Pair, session: Session):
    images = session.scalars(select(Image.id).order_by(Image.id)).all()
    change_card(session, pair.search, counts_as_yes=" Young too ", counts_as_no="A bag")
    assert (pair.search.counts_as_yes, pair.search.counts_as_no) == ("Young too", "A bag")
    put_on_card(session, pair.search, images[0], "yes")
    put_on_card(session, pair.search, images[1], "no")
    put_on_card(session, pair.search, images[1], "no")
    put_on_card(session, pair.search, images[0], "no")  # it is a no after all
    card = read_card(session, pair.search)
    assert ([], images[:2]) == ([one.id for one in card.yes], sorted(one.id for one in card.no))
    put_on_card(session, pair.search, images[1], "off")
    assert [one.id for one in read_card(session, pair.search).no] == [images[0]]
    other = make_images(session, make_collection(session, name="Other"), 1)
    with pytest.raises(NotFound):
        put_on_card(session, pair.search, other[0].id, "yes")
    for image_id in images[1 : MAX_CARD_IMAGES + 1]:
        put_on_card(session, pair.search, image_id, "yes")
    with pytest.raises(BadInput, match="Take one off"):
        put_on_card(session, pair.search, images[50], "yes")
