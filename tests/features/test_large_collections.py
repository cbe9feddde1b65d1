"""A search of a collection that is too large to score every image in a round."""

import pytest
from sqlalchemy import select

from app import searching
from app.adjusting import filter_search, list_strategies
from app.answers import read_current_answers
from app.dashboards.moments import open_moment
from app.dashboards.report import describe_report
from app.errors import BadInput
from app.filtering import Filter
from app.indexing import LoadedEmbedders, OpenIndexes
from app.results import list_results
from app.tables import Round
from app.workers import Readers
from tests.factories import make_index
from tests.features.test_detours import Hunt, prepare_otherwise, propose_again


@pytest.fixture
def few_are_many(monkeypatch) -> None:
    monkeypatch.setattr("app.engine.index.RANKED_ROWS", 50)


@pytest.fixture
def hunt(few_are_many, session, settings) -> Hunt:
    hunt = Hunt(session, settings)
    assert not hunt.index.ranks_all
    return hunt


def test_a_search_finds_the_target_and_every_round_is_proposed_again(hunt, settings):
    prepare_otherwise(hunt, settings)
    for _ in range(3):
        hunt.submit()
    found = set(read_current_answers(hunt.session, hunt.search))
    assert hunt.targets <= found
    hunt.take("estimate", 30)
    hunt.submit()
    hunt.take("gap", 12, hunt.images[60].id)
    hunt.submit()
    hunt.take("second-look", 20)
    hunt.submit()
    hunt.take("other-embedder", 18, embedder="other-eyes")
    hunt.submit()
    hunt.take("absence", 12)
    hunt.submit()
    propose_again(hunt, hunt.session.scalars(select(Round).order_by(Round.id)).all())
    moment = open_moment(hunt.session, hunt.search, hunt.indexes, None)
    assert len(moment.scores) == 200 - len(moment.answers.rows)
    assert describe_report(moment)


def test_images_left_open_do_not_come_straight_back(hunt):
    seen = []
    for _ in range(4):
        shown = hunt.shown()
        assert not set(shown) & set(seen)
        seen += shown
        searching.submit_answers(
            hunt.session,
            hunt.search,
            person=hunt.person,
            round_id=hunt.search.current_round_id,
            values={shown[0]: "no"},
            rest_are_no=False,
            gesture_key=None,
            indexes=hunt.indexes,
        )
    propose_again(hunt, hunt.session.scalars(select(Round).order_by(Round.id)).all())


def test_likely_images_beyond_those_shown_are_said_to_be_there(hunt, monkeypatch):
    hunt.submit()

    def look():
        return list_results(hunt.session, hunt.search, show="likely", page=1, indexes=hunt.indexes)

    every = look()
    assert every.total > 2 and not every.likely_are_more
    monkeypatch.setattr("app.results.MOST_LIKELY", 2)
    first = look()
    assert (first.total, first.counts["likely"], first.likely_are_more) == (2, 2, True)


def test_a_filter_holds(hunt):
    for number, image in enumerate(hunt.images):
        image.path = f"{'A' if number % 5 else 'B'}/{number:03}.jpg"
    hunt.session.flush()
    kept = {image.id for image in hunt.images if image.path.startswith("A")}
    filter_search(hunt.session, hunt.search, Filter((("deployment", "A"),)))
    hunt.submit()
    for _ in range(3):
        assert set(hunt.shown()) <= kept
        hunt.submit()
    propose_again(hunt, hunt.session.scalars(select(Round).order_by(Round.id)).all())


def test_strategies_that_look_at_every_image_are_neither_offered_nor_taken(hunt, session, settings):
    offered = list_strategies(session, hunt.search.collection_id, hunt.indexes)
    names = [choice.name for choice in offered]
    assert names[0] == "rarefind"
    assert "pf-ma" in names
    assert not {"random", "typiclust", "anchoral:pf-ma"} & set(names)
    with pytest.raises(BadInput, match=r"typiclust looks at every image.*Choose one of rarefind"):
        searching.open_search(
            session,
            person=hunt.person,
            collection_id=hunt.search.collection_id,
            target_name="Stork",
            strategy="typiclust",
            image_ids=[hunt.images[3].id],
            photo_ids=[],
            indexes=hunt.indexes,
            embedders=LoadedEmbedders(settings, Readers(settings)),
            settings=settings,
        )


def test_a_collection_that_grew_too_large_for_a_strategy_says_so_and_keeps_the_answers(
    session, settings, monkeypatch
):
    hunt = Hunt(session, settings)
    hunt.search.strategy = "coreset"
    hunt.submit()
    answers = read_current_answers(session, hunt.search)
    monkeypatch.setattr("app.engine.index.RANKED_ROWS", 50)
    make_index(session, settings, hunt.images, hunt.index.vectors)
    with (
        pytest.raises(BadInput, match="coreset looks at every image"),
        session.begin_nested(),
    ):
        hunt.submit()
    assert read_current_answers(session, hunt.search) == answers
    hunt.search.strategy = "rarefind"
    hunt.submit()
    assert len(read_current_answers(session, hunt.search)) == len(answers) + 12
    assert OpenIndexes(settings).get(hunt.row).ranks_all
