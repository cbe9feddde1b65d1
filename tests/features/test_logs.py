"""What is logged of a request and of a job, and what is not: names, queries, rows, broken lines."""

import json
import logging
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, text

from app.jobs import Worker, add_job
from app.logs import JsonLines, Lines, start_logging, take_request_id
from app.tables import Job
from tests.factories import make_collection


@pytest.fixture
def logged(settings):
    """Starts logging as set, and gives the lines so far."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield start_logging
    root.handlers[:] = before
    root.setLevel(level)
    for name in ("httpx", "httpx2", "procrastinate", "alembic", "urllib3", "PIL", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def read_lines(capsys) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize("given", ["", "short", "a" * 65, "abc\r\nX: y", "<script>", "ab cdef"])
def test_number_that_could_inject_is_replaced(given):
    assert take_request_id(given) != given
    assert take_request_id("edge-0123.AB_c") == "edge-0123.AB_c"


def test_request_is_logged_with_its_number_and_without_what_it_says(
    logged, settings, client, capsys
):
    logged(settings.model_copy(update={"log_format": "json", "log_level": "info"}))
    client.get(
        "/sign-in?token=geheim", headers={"X-Request-ID": "edge-7001"}, follow_redirects=False
    )
    answer = client.get("/collections/77?find=Ada%20Lovelace")
    client.get("/nowhere/geheim")
    lines = [line for line in read_lines(capsys) if line["logger"] == "rarefind.requests"]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/sign-in", 303),
        ("/collections/{collection_id}", 404),
        ("none", 404),
    ]
    assert lines[0]["request_id"] == "edge-7001" and lines[1]["path"] == "/collections/77"
    assert lines[1]["request_id"] == answer.headers["X-Request-ID"] != lines[2]["request_id"]
    everything = json.dumps(lines)
    assert "geheim" not in everything and "Ada" not in everything and "127.0.0.1" not in everything
    assert datetime.fromisoformat(lines[0]["time"]).tzinfo == UTC


def test_fault_is_logged_under_the_number_that_its_page_says(
    logged, settings, client, capsys, monkeypatch
):
    def break_down(session, *_args, **_kwargs):
        session.execute(
            text("INSERT INTO people (name, role) VALUES (:name, 'admin'), (:name, 'admin')"),
            {"name": "Ada Geheim"},
        )

    monkeypatch.setattr("app.pages.home.list_collections", break_down)
    logged(settings.model_copy(update={"log_format": "json"}))
    page = client.get("/", headers={"X-Request-ID": "edge-7002"})
    assert page.status_code == 500 and "<code>edge-7002</code>" in page.text
    (line,) = read_lines(capsys)
    assert line["request_id"] == "edge-7002" and "UniqueViolation" in line["error"]
    assert "Ada Geheim" not in json.dumps(line)


def test_message_can_not_begin_a_line_of_its_own():
    record = logging.makeLogRecord({"name": "x", "levelname": "INFO", "msg": "a\nERROR y: b"})
    assert Lines().format(record).endswith(" INFO x: a\n    ERROR y: b")
    assert "\x1b" not in Lines().format(logging.makeLogRecord({"name": "x", "msg": "\x1b[2J"}))
    assert json.loads(JsonLines().format(record))["message"] == "a\nERROR y: b"
    quoting = logging.makeLogRecord({"name": "x", "msg": "twice\nDETAIL: Row has (a\nnote by Ada)"})
    assert "Ada" not in Lines().format(quoting) + JsonLines().format(quoting)


def test_job_is_logged_under_the_request_that_asked_for_it(
    logged, settings, own_database, own_database_url, capsys
):
    from app.logs import REQUEST_ID

    token = REQUEST_ID.set("edge-7003")
    with own_database.session() as session:
        collection_id = make_collection(session).id
        job_id = add_job(session, "index", collection_id=collection_id, person=None).id
    REQUEST_ID.reset(token)

    def break_down(*_):
        raise OSError("no")

    logged(settings.model_copy(update={"log_format": "json", "log_level": "info"}))
    worker = Worker(own_database, settings, {"index": break_down})
    worker._run(job_id)
    lines = [line for line in read_lines(capsys) if line["logger"] == "app.jobs"]
    assert [(line["job_id"], line["request_id"]) for line in lines] == [(job_id, "edge-7003")] * 2
    with own_database.session() as session:
        assert "under edge-7003" in session.scalar(select(Job.problem))
