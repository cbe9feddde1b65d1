"""Who may import whom is checked for all rooms: none is left out of the layers."""

import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent.parent


def test_every_room_is_in_the_layers():
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = {
        f"app.{path.stem}"
        for path in (PROJECT / "app").iterdir()
        if path.stem != "__init__" and (path.suffix == ".py" or (path / "__init__.py").exists())
    }
    assert {room for layer in layers for room in layer.split(" | ")} == rooms
