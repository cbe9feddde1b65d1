"""A server of two processes: both serve, what they count is summed, one that dies is replaced."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from app.limiting import Limits
from app.security import add_token, get_local_person

pytestmark = pytest.mark.slow

RAREFIND = Path(sys.executable).parent / "rarefind"
PATIENCE_S = 120
STOP_S = 8


def until(holds, *, said=lambda: "") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, said()
        time.sleep(0.1)


@pytest.fixture
def served(settings, tmp_path, own_database, own_database_url):
    """The first process of the server, its address, and a token of an admin."""
    with own_database.session() as session:
        token = add_token(session, get_local_person(session), "p", scope="admin")
    log = tmp_path / "server.log"
    with log.open("wb") as output:
        first = subprocess.Popen(
            [RAREFIND, "serve", "--port", "0", "--processes", "2"],
            env=os.environ
            # A folder as it is named from where the server is started.
            | {"RAREFIND_HOME": settings.home.name, "DATABASE_URL": own_database_url}
            | {"RAREFIND_STOP_S": str(STOP_S), "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=settings.home.parent,
        )
    try:
        until(lambda: "/sign-in?" in log.read_text() or first.poll(), said=log.read_text)
        yield (
            psutil.Process(first.pid),
            re.search(r"(http://\S+?)/sign-in", log.read_text())[1],
            token,
        )
    finally:
        for process in (*list_parts(psutil.Process(first.pid)), first):
            process.kill()
        first.wait()


def list_parts(first: psutil.Process) -> list[psutil.Process]:
    """The processes that serve."""
    try:
        return [one for one in first.children() if "serve-part" in one.cmdline()]
    except psutil.NoSuchProcess:
        return []


def count_requests(address: str, token: str) -> float:
    headers = {"Authorization": f"Bearer {token}"}
    told = httpx.get(f"{address}/metrics", headers=headers, timeout=30).raise_for_status().text
    route = 'method="GET",route="/api/v1/health",status="200"'
    found = re.search(rf"rarefind_request_seconds_count{{{route}}} (\S+)", told)
    return float(found[1]) if found else 0.0


def test_two_processes_serve_and_stop_as_one(served):
    first, address, token = served
    parts = list_parts(first)
    assert len(parts) == 2
    assert {one.cwd() for one in parts} == {first.cwd()}
    for _ in range(30):  # each by a connection of its own
        assert httpx.get(f"{address}/api/v1/health", timeout=30).status_code == 200
    # Whichever process is asked.
    assert {count_requests(address, token) for _ in range(6)} == {30.0}

    parts[1].send_signal(signal.SIGKILL)
    assert httpx.get(f"{address}/api/v1/health", timeout=30).status_code == 200
    until(
        lambda: len(list_parts(first)) == 2 and parts[1].pid not in map(pid_of, list_parts(first))
    )
    assert parts[0].is_running()

    now = list_parts(first)
    first.send_signal(signal.SIGTERM)  # one of them may have only just begun
    until(lambda: not any(map(is_alive, (first, *now))))


def test_processes_end_when_the_one_that_watches_is_killed(served):
    first, _, _ = served
    parts = list_parts(first)
    first.kill()
    until(lambda: not any(map(is_alive, parts)))


def pid_of(process: psutil.Process) -> int:
    return process.pid


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_processes_share_the_limits_of_a_minute(settings):
    shared = Limits(settings.model_copy(update={"changes_a_minute": 90, "processes": 3}))
    assert shared._changes.amount == 30
    none = Limits(settings.model_copy(update={"changes_a_minute": 0, "processes": 3}))
    assert none._changes is None


# As a database that goes in the moment in which the server would say that it is ready.
GOES = """
import socket
from sqlalchemy.exc import OperationalError
from app.cli.serving import serve_on
from app.errors import DatabaseNotUsable
from app.settings import Settings

def announce(database):
    raise OperationalError("SELECT 1", {}, Exception("gone"))

try:
    serve_on(socket.create_server(("127.0.0.1", 0)), Settings(), announce=announce)
except DatabaseNotUsable as problem:
    print(problem)
"""


def test_a_server_whose_database_goes_while_it_starts_ends_with_a_sentence(
    settings, own_database_url
):
    ended = subprocess.run(
        [sys.executable, "-c", GOES],
        env=os.environ | {"RAREFIND_HOME": str(settings.home), "DATABASE_URL": own_database_url},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert ended.stdout.splitlines()[-1].startswith("The database went away while the server")
    assert "Traceback" not in ended.stderr
