"""A real server that is told to stop: what is under way is finished, and nothing holds it up."""

import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text

from app.security import add_token, get_local_person
from app.tables import Round
from tests.factories import make_collection, make_images, make_index
from tests.gateway import Gateway

pytestmark = pytest.mark.slow

RAREFIND = Path(sys.executable).parent / "rarefind"
STARTING_S = 60
STOP_S = 6


@pytest.fixture
def serve(settings, tmp_path):
    """Starts a server on a database; its process and address."""
    started: list[subprocess.Popen] = []

    def start(url: str, **environment: str) -> tuple[subprocess.Popen, str]:
        log = tmp_path / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [RAREFIND, "serve", "--port", "0"],
                env=os.environ
                | {"RAREFIND_HOME": str(settings.home), "DATABASE_URL": url}
                | {"RAREFIND_STOP_S": str(STOP_S), "OMP_NUM_THREADS": "1"}
                | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        deadline = time.monotonic() + STARTING_S
        while time.monotonic() < deadline and process.poll() is None:
            if found := re.search(r"(http://\S+?)/sign-in\?", log.read_text()):
                return process, found[1]
            time.sleep(0.1)
        raise AssertionError(log.read_text())

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_round_under_way_is_finished_and_nothing_new_is_taken(
    serve, settings, own_database, own_database_url
):
    with own_database.session() as session:
        person = get_local_person(session)
        images = make_images(session, make_collection(session), 40)
        make_index(session, settings, images)
        token = add_token(session, person, "p")
    process, address = serve(own_database_url, RAREFIND_STOP_S="30")
    with (
        httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"}) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        opening = {"target_name": "heron", "image_ids": [images[0].id], "round_size": 6}
        opened = client.post(
            f"/api/v1/collections/{images[0].collection_id}/searches", json=opening
        )
        here = f"/api/v1/searches/{opened.json()['search_id']}"
        grid = client.get(f"{here}/round").json()
        body = {"round_id": grid["round_id"], "answers": {}, "rest_are_no": True}
        with own_database.session() as session:
            session.execute(text("SELECT FROM searches FOR UPDATE"))  # so that the round waits
            submitted = pool.submit(client.post, f"{here}/submit", json=body)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            until = time.monotonic() + 5
            with pytest.raises(httpx.ConnectError):
                while time.monotonic() < until:
                    httpx.get(f"{address}/api/v1/health")
                    time.sleep(0.1)
            assert process.poll() is None and not submitted.done()
        assert submitted.result().status_code == 200
    process.wait(30)
    with own_database.session() as session:
        assert session.query(Round).count() == 2


@pytest.mark.parametrize(("how", "number"), [("shut", signal.SIGTERM), ("freeze", signal.SIGINT)])
def test_server_whose_database_is_gone_ends_in_time(serve, own_database_url, how, number):
    with Gateway(own_database_url) as gateway, ThreadPoolExecutor(1) as pool:
        process, address = serve(gateway.url)
        getattr(gateway, how)()
        bearer = {"Authorization": "Bearer x"}  # it is looked for in the database
        asked = pool.submit(httpx.get, address, headers=bearer, timeout=60)
        time.sleep(1)
        began = time.monotonic()
        process.send_signal(number)
        process.wait(STOP_S + 3)
        assert time.monotonic() - began < STOP_S + 2
        assert asked.exception() is not None or asked.result().status_code >= 500
