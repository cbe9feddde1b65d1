"""docs/operations.md names every setting, with its default."""

from pathlib import Path

import pytest

from app.settings import Settings

DOCS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
ROWS = {
    line.split("|")[1].split("`")[1]: line for line in DOCS.splitlines() if line.startswith("| `")
}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_stands_in_the_table_with_its_default(name):
    field = Settings.model_fields[name]
    variable = "DATABASE_URL" if name == "database_url" else f"RAREFIND_{name.upper()}"
    assert variable in ROWS
    if name not in ("home", "database_url", "weights"):
        default = field.default
        shown = f"{default:g}" if isinstance(default, float) else str(default)
        assert f"| `{shown}` |" in ROWS[variable]
    assert field.description


def test_no_setting_of_the_table_is_gone():
    known = {f"RAREFIND_{name.upper()}" for name in Settings.model_fields} | {"DATABASE_URL"}
    variables = {name for name in ROWS if name.isupper()}
    assert variables <= known
