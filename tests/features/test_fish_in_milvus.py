"""The same search among real fish, with FAISS's files on this machine and with milvus-lite."""

import zipfile
from collections import Counter

import numpy as np
import pytest
from sqlalchemy import select

from app.engine.index import open_index
from app.engine.replay import replay
from app.importing import import_images
from app.indexing import OpenIndexes, build_index
from app.searchers import LITE, ExplainedSearcher
from app.tables import Image, ImageIndex
from tests.factories import make_collection

RARE = "11_Abudefduf_vaigiensis"  # 42 images
MOST = 250  # of each of the 23 species


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_the_same_images_are_chosen_in_every_round(
    shared_data, own_database, settings, tmp_path, monkeypatch
):
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
    indexes = OpenIndexes(settings)
    with own_database.session() as session:
        row = session.scalars(select(ImageIndex)).one()
        by_milvus = indexes.get(row)
        rare = session.scalars(select(Image.id).where(Image.path.startswith(RARE))).all()
    by_faiss = open_index(settings.home / "indexes" / str(row.id))
    assert by_faiss.ranks_all and not by_milvus.ranks_all
    assert by_faiss.count > 1_500 and len(rare) == taken[RARE] == 42

    asked = []
    find_ranked = ExplainedSearcher.find_ranked
    monkeypatch.setattr(
        ExplainedSearcher,
        "find_ranked",
        lambda self, *given, **named: asked.append(named) or find_ranked(self, *given, **named),
    )
    rows = np.sort(by_faiss.rows_of(list(rare)))
    for strategy in ("rarefind", "pf-ma"):
        played = [
            replay(
                index, rows, opening_rows=rows[:1], strategy=strategy, rounds=20, size=12, seed=1
            )
            for index in (by_faiss, by_milvus)
        ]
        chosen = [[one.proposal.rows.tolist() for one in rounds] for rounds in played]
        assert chosen[0] == chosen[1], strategy
        assert len(chosen[0]) == 20
        found = int(np.isin(rows, played[1][-1].answers.rows).sum())
        assert found >= 38, "a search worth its name"
    assert len(asked) == 40, "Milvus was asked in every round"
    indexes.close()
