"""What the first whole state of Rarefind left comes up to date with every answer, and goes on."""

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from alembic import command
from starlette.testclient import TestClient

from app.database import alembic_config, open_database
from app.examining import examine
from tests.conftest import open_web

FIRST = Path(__file__).parents[1] / "upgrades"
SAID = json.loads((FIRST / "first.json").read_text())
SEARCH = f"/api/v1/searches/{SAID['search_id']}"
HOME_THEN = "/srv/rarefind"


@pytest.fixture
def first(settings, empty_database_url):
    """Settings of a server on the database and the data folder of then; nothing is migrated."""
    settings = settings.model_copy(update={"database_url": empty_database_url, "run_jobs": False})
    with zipfile.ZipFile(FIRST / "first.zip") as packed:
        packed.extractall(settings.home)
    dump = (FIRST / "first.sql").read_text().replace(HOME_THEN, str(settings.home))
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(dump.encode())
    return settings


def ask(web: TestClient) -> dict:
    """What is told of the search, as far as it was told then."""

    def get(path: str) -> dict:
        answer = web.get(SEARCH + path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    told = get("/round")
    fields = ("image_id", "position", "path", "answer", "score")
    return {
        "round": {name: told[name] for name in ("round_id", "number")}
        | {"images": [{name: image[name] for name in fields} for image in told["images"]]},
        "results": {
            show: sorted(one["image_id"] for one in get(f"/results?show={show}")["images"])
            for show in SAID["results"]
        },
    }


def test_search_of_the_first_state_is_whole_and_goes_on(first):
    with open_web(first, first.database_url) as web:
        assert web.get("/api/v1/ready").status_code == 200
        web.headers["Authorization"] = f"Bearer {SAID['token']}"
        told = ask(web)
        assert told["results"] == SAID["results"]
        for now, then in zip(told["round"]["images"], SAID["round"]["images"], strict=True):
            assert now == {name: then[name] for name in now}
        assert told["round"]["number"] == SAID["round"]["number"] == 3

        image_id = SAID["results"]["yes"][0]
        for file in ("small", "original"):
            assert web.get(f"/images/{image_id}/{file}").headers["content-type"] == "image/jpeg"

        body = {"round_id": told["round"]["round_id"], "answers": {}, "rest_are_no": True}
        submitted = web.post(f"{SEARCH}/submit", json=body)
        assert submitted.status_code == 200
        after = submitted.json()["round"]
        answered = {one for own in SAID["results"].values() for one in own}
        answered |= {image["image_id"] for image in told["round"]["images"]}
        assert after["number"] == 4 and after["images"]
        assert answered.isdisjoint(image["image_id"] for image in after["images"])
        assert web.post(f"{SEARCH}/undo", json={}).json()["round"]["number"] == 3
    wrong = [one.sentence for one in examine(first, now=datetime.now(UTC)) if one.state == "wrong"]
    assert wrong == []


def test_last_step_goes_down_and_up_again_with_what_is_there(first):
    database = open_database(first)
    with database.bind.engine.begin() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "-1")
        command.upgrade(config, "head")
    database.close()
    with open_web(first, first.database_url) as web:
        web.headers["Authorization"] = f"Bearer {SAID['token']}"
        told = ask(web)
    assert told["results"] == SAID["results"]
    shown = [image["image_id"] for image in told["round"]["images"]]
    assert shown == [image["image_id"] for image in SAID["round"]["images"]]
