"""Liveness, readiness and measures: which part is missing, who may read, what is counted."""

import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Timer

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from starlette.testclient import TestClient

from app.jobs import add_job
from app.security import add_token, get_local_person
from tests.api.test_searches import COUNT, api, open_search, submit  # noqa: F401 (a fixture)
from tests.conftest import open_web
from tests.factories import make_person
from tests.gateway import Gateway


def read(client: TestClient) -> dict[tuple[str, ...], float]:
    """Each sample by its name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_server_in_good_order_is_ready_and_says_what_it_looked_at(web):
    answer = web.get("/api/v1/ready")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "missing": [],
        "parts": [{"name": name, "state": "ok"} for name in ("database", "data folder", "indexes")],
    }


def test_what_is_missing_is_named(api, own_database):  # noqa: F811
    settings = api.app.state.settings
    shutil.rmtree(settings.home / "indexes" / "1")
    with own_database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0035'"))
    settings.home.rename(settings.home.with_name("elsewhere"))
    answer = api.get("/api/v1/ready")
    assert answer.status_code == 503
    assert answer.json()["missing"] == ["database", "data folder", "indexes"]
    states = [part["state"] for part in answer.json()["parts"]]
    assert "at version 0035" in states[0] and "No such file" in states[1]
    assert states[2].startswith("Missing: number 1.") and "Pond" not in answer.text


@pytest.mark.slow
def test_database_that_hangs_or_is_gone_makes_no_request_of_these_wait(settings, own_database_url):
    idle = settings.model_copy(update={"run_jobs": False})
    with Gateway(own_database_url) as gateway, open_web(idle, gateway.url) as web:
        assert web.get("/api/v1/ready").status_code == 200
        gateway.freeze()
        for _ in range(2):  # the second while the first question still hangs
            began = time.monotonic()
            answer = web.get("/api/v1/ready")
            assert time.monotonic() - began < 5
            assert answer.status_code == 503
            assert answer.json()["missing"] == ["database", "indexes"]
        assert web.get("/api/v1/health").status_code == 200
        gateway.thaw()
        gateway.shut()
        until = time.monotonic() + 10
        while "has not answered" in (state := web.get("/api/v1/ready").json()["parts"][0]["state"]):
            assert time.monotonic() < until, "what hung is not asked for ever"
            time.sleep(0.1)
        assert state == "PostgreSQL does not answer."
        assert web.get("/api/v1/health").json() == {"status": "ok"}


def test_who_asks_while_another_waits_gets_the_same_answer(settings, own_database_url):
    idle = settings.model_copy(update={"run_jobs": False})
    with Gateway(own_database_url) as gateway, open_web(idle, gateway.url) as web:
        gateway.freeze()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(web.app.state.readiness.check)
            time.sleep(0.3)
            Timer(0.3, gateway.thaw).start()
            second = web.get("/api/v1/ready")
            assert second.status_code == 200, second.text
            assert [part.problem for part in first.result()] == [None] * 3


def test_measures_count_rounds_answers_and_requests_by_route(api, own_database):  # noqa: F811
    search = open_search(api, target_name="Geheim")
    grid = api.get(f"/api/v1/searches/{search['search_id']}/round").json()
    first, *_, last = [card["image_id"] for card in grid["images"]]
    api.post("/api/v1/searches/999/submit", json={})
    before = read(api)
    submit(api, search, grid, {first: "yes", last: "unsure"})
    with own_database.session() as session:
        add_job(session, "index", collection_id=api.collection_id, person=None)
        session.execute(
            text("UPDATE jobs SET made_at = now() - interval '1 hour', state = 'waiting'")
        )
        session.execute(text("DELETE FROM procrastinate_jobs"))
    now = read(api)

    def grown(*key: str) -> float:
        return now[key] - before.get(key, 0)

    route = "/api/v1/searches/{search_id}/submit"
    assert grown("rarefind_request_seconds_count", "POST", route, "200") == 1
    assert before["rarefind_request_seconds_count", "POST", route, "404"] == 1
    assert grown("rarefind_round_proposing_seconds_count") == 1
    assert grown("rarefind_round_submitting_seconds_count") == 1
    assert 0 < grown("rarefind_round_submitting_seconds_sum") < 10
    assert [grown("rarefind_answers_total", value) for value in ("yes", "unsure", "no")] == [
        1,
        1,
        4,
    ]
    assert now["rarefind_images",] == COUNT
    assert now["rarefind_open_indexes",] == 1
    assert now["rarefind_open_indexes_bytes",] == COUNT * 16 * 4
    assert now["rarefind_database_connections_in_use",] >= 1
    assert 3_600 <= now["rarefind_oldest_waiting_job_seconds",] < 3_700
    assert now["rarefind_jobs", "waiting"] == 1
    said = api.get("/metrics").text
    assert "Geheim" not in said and "Pond" not in said


def test_answers_of_a_transaction_that_failed_are_not_counted(api):  # noqa: F811
    search = open_search(api)
    grid = api.get(f"/api/v1/searches/{search['search_id']}/round").json()
    before = read(api)
    refused = api.post(
        f"/api/v1/searches/{search['search_id']}/submit",
        json={"round_id": grid["round_id"], "answers": {10**9: "yes"}, "rest_are_no": True},
    )
    assert refused.status_code == 422
    now = read(api)
    for name in ("rarefind_answers_total", "rarefind_round_proposing_seconds_count"):
        assert {k: v for k, v in now.items() if k[0] == name} == {
            k: v for k, v in before.items() if k[0] == name
        }


def test_unknown_addresses_and_methods_make_no_measures_of_their_own(api):  # noqa: F811
    for number in range(3):
        api.get(f"/nowhere/{number}")
        api.request(f"METHOD{number}", "/")
    said = api.get("/metrics").text
    assert "/nowhere" not in said and "METHOD" not in said
    assert re.search(r'method="none",route="none",status="404"} 3', said)


@pytest.mark.parametrize(("role", "status"), [("ecologist", 403), ("admin", 200)])
def test_measures_are_read_with_an_admins_token_of_the_least_scope(web, role, status):
    assert web.get("/metrics").status_code == 401
    with web.app.state.database.session() as session:
        get_local_person(session)
        token = add_token(session, make_person(session, name="x", role=role), "p", scope="read")
    answer = web.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == status
