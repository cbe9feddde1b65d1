"""The same search among real fish, by all exact scores and by the candidates of milvus-lite."""

import zipfile
from collections import Counter

import numpy as np
import pytest
from sqlalchemy import select

from app.engine.answers import Answers, Value
from app.engine.index import VectorIndex
from app.engine.loop import Choice, Opening, Proposal, make_opening
from app.engine.replay import replay
from app.engine.strategies import get_strategy
from app.engine.strategies.round_state import OPENING, RoundState, smallest
from app.importing import import_images
from app.indexing import OpenIndexes, build_index
from app.searchers import LITE, ExplainedSearcher, Searchers
from app.tables import Image, ImageIndex
from tests.factories import make_collection

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]

RARE = "11_Abudefduf_vaigiensis"  # 42 images
MOST = 400  # of each of the 23 species
ROUNDS, SIZE, TOP = 20, 12, 360


@pytest.fixture
def fish(shared_data, own_database, settings, tmp_path):
    """Some thousand fish: their index, its searcher, and the rows of the rare ones."""
    taken: Counter[str] = Counter()
    with zipfile.ZipFile(shared_data / "fish.zip") as packed:
        for name in sorted(packed.namelist()):
            species = name.split("/")[0]
            if name.endswith(".jpg") and taken[species] < MOST:
                taken[species] += 1
                packed.extract(name, tmp_path / "fish")
    with own_database.session() as session:
        collection = make_collection(session)
        collection.vectors = LITE
    import_images(own_database, collection.id, tmp_path / "fish", settings=settings)
    build_index(own_database, collection.id, settings=settings)
    with own_database.session() as session:
        row = session.scalars(select(ImageIndex)).one()
        rare = session.scalars(select(Image.id).where(Image.path.startswith(RARE))).all()
        index = OpenIndexes(settings).get(row)
    searchers = Searchers(settings)
    yield (
        index,
        searchers.find(row, settings.home / "indexes" / str(row.id), index.vectors),
        np.sort(index.rows_of(list(rare))),
    )
    searchers.close()


def test_the_same_images_are_chosen_in_every_round(fish):
    for strategy in ("rarefind", "pf-ma"):
        play(*fish, strategy)


def play(index: VectorIndex, searcher: ExplainedSearcher, rare: np.ndarray, strategy: str) -> None:
    assert index.count > 2_000 and len(rare) == 42
    opening = Opening(
        make_opening(index.vectors[rare[:1]]), np.empty((0, index.dimension), np.float32)
    )
    played = replay(
        index, rare, opening_rows=rare[:1], strategy=strategy, rounds=ROUNDS, size=SIZE, seed=1
    )
    assert len(played) == ROUNDS
    answers = Answers(rare[:1], np.full(1, Value.YES, np.int8))
    for number, one in enumerate(played, start=1):
        chosen = choose_among(
            *find_candidates(index, searcher, answers, opening, one.proposal),
            strategy,
            number,
        )
        every = np.setdiff1d(np.arange(index.count), answers.rows)
        exact = choose_among(index, answers, opening, one.proposal, every, strategy, number)
        assert chosen.rows.tolist() == exact.rows.tolist(), number
        assert chosen.reasons == exact.reasons
        answers = one.answers
    found = np.isin(rare, answers.rows).sum()
    assert found >= 38, "a search worth its name"


def find_candidates(
    index: VectorIndex,
    searcher: ExplainedSearcher,
    answers: Answers,
    opening: Opening,
    proposal: Proposal,
):
    head = proposal.head
    if head is None:
        count = SIZE + len(answers.rows)
        rows = searcher.find_nearest(opening.vector[np.newaxis], count, None)[0]
    else:
        rows = searcher.find_ranked(
            head.weights,
            float(head.bias),
            top=TOP,
            line=SIZE,
            closed=answers.rows,
            rows=None,
        )
        assert len(rows) < index.count / 3
    return index, answers, opening, proposal, np.setdiff1d(rows, answers.rows)


def choose_among(
    index: VectorIndex,
    answers: Answers,
    opening: Opening,
    proposal: Proposal,
    rows: np.ndarray,
    strategy: str,
    number: int,
) -> Choice:
    """What the strategy chooses of some rows, by the head of that round and exact scores."""
    head = proposal.head
    if head is None:
        similarities = index.similarities(opening.vector)[rows]
        return Choice.of(rows[smallest(-similarities, SIZE)], OPENING)
    order = np.argsort(answers.rows)
    return get_strategy(strategy).choose(
        RoundState(
            index,
            Answers(answers.rows[order], answers.values[order]),
            opening,
            rows,
            head,
            index.scores(head.weights, head.bias),
            SIZE,
            np.random.default_rng(number),
        )
    )
