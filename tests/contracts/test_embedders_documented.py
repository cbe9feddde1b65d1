"""docs/embedders.md names every embedder with a plain name, and what it takes."""

from pathlib import Path

import pytest

from app.engine.embedders import EMBEDDERS

DOCS = (Path(__file__).parents[2] / "docs" / "embedders.md").read_text()
ROWS = {
    line.split("`")[1]: [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCS.splitlines()
    if line.startswith("| `") and ":" not in line.split("`")[1]
}


@pytest.mark.parametrize("name", EMBEDDERS)
def test_every_embedder_stands_in_the_table(name):
    entry = EMBEDDERS[name]
    _, _, _, words, numbers, _, weights = ROWS[name]
    assert words == ("yes" if entry.knows_words else "no")
    assert numbers == str(entry.dimension)
    assert weights == (f"{entry.size_mb:,} MB" if entry.files else "included")


def test_no_embedder_of_the_table_is_gone():
    assert ROWS.keys() == EMBEDDERS.keys()
