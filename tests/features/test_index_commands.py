"""`rarefind index build` and `index combine`: indexes side by side, by command."""

import pytest
from typer.testing import CliRunner, Result

from app.cli import app
from app.indexes import list_indexes
from tests.factories import make_image_file
from tests.stand_ins import HashEmbedder, register


@pytest.fixture
def rarefind(monkeypatch, settings, own_database_url):
    """Runs `rarefind …` on a data folder and a database of the test's own."""
    monkeypatch.setenv("RAREFIND_HOME", str(settings.home))
    monkeypatch.setenv("DATABASE_URL", own_database_url)
    monkeypatch.setenv("RAREFIND_WORKERS", "1")
    other = HashEmbedder("other:1")
    other.name = "other"
    for embedder in (HashEmbedder(), other):
        register(monkeypatch, embedder)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


def test_indexes_are_built_combined_and_kept_up(rarefind, own_database, tmp_path):
    def counts() -> dict[str, int]:
        with own_database.session() as session:
            return {one.embedder: one.image_count for one in list_indexes(session, 1)}

    photos = tmp_path / "photos"
    for number in range(3):
        make_image_file(photos / f"{number}.jpg", number)
    assert rarefind("collection", "add", "Pond", photos, "--embedder", "hash").exit_code == 0
    built = rarefind("index", "build", "Pond", "--embedder", "other")
    assert built.exit_code == 0 and "other: 3 images" in built.stdout
    combined = rarefind("index", "combine", "Pond", "hash", "other")
    assert combined.exit_code == 0 and "hash + other: 3 images" in combined.stdout
    make_image_file(photos / "3.jpg", 3)
    assert rarefind("collection", "add", "Pond", photos).exit_code == 0
    assert counts() == {"hash": 4, "other": 4, "hash + other": 4}, "and none by the default"


def test_what_cannot_be_built_or_combined_is_a_sentence(rarefind, own_database, tmp_path):
    make_image_file(tmp_path / "photos" / "0.jpg", 0)
    rarefind("collection", "add", "Pond", tmp_path / "photos", "--embedder", "hash")
    for arguments, sentence in (
        (("build", "Lake", "--embedder", "hash"), "There is no collection “Lake”."),
        (("build", "Pond", "--embedder", "eagle-eye"), "There is no embedder"),
        (("combine", "Pond", "hash", "other"), "not prepared with other"),
        (("combine", "Pond", "hash", "hash"), "two different embedders"),
    ):
        result = rarefind("index", *arguments)
        assert result.exit_code == 1
        assert sentence in result.stderr
        assert "Traceback" not in result.output
