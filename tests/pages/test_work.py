"""The page of long work: who sees what, what it says, Stop and Try again."""

from datetime import UTC, datetime, timedelta

from app.jobs import add_job
from app.security import get_local_person
from app.tables import ImageIndex, Import, Job
from tests.factories import make_collection, make_person

HTMX = {"HX-Request": "true"}


def add(client, *, person=None, embedder="owl", **changes) -> int:
    """A job that no worker takes, as it would stand after `changes`."""
    with client.app.state.database.session() as session:
        collection = make_collection(session, name=f"Pond of {embedder}")
        owner = person or get_local_person(session)
        job = add_job(
            session, "index", collection_id=collection.id, person=owner, embedder=embedder
        )
        for name, value in changes.items():
            setattr(job, name, value)
        return job.id


def read(client, job_id) -> Job:
    with client.app.state.database.session() as session:
        return session.get_one(Job, job_id)


def test_page_says_how_each_job_stands_and_looks_again(idle_client):
    client = idle_client
    assert "Nothing has been asked for yet" in client.get("/work").text
    now = datetime.now(UTC)
    running = add(
        client,
        embedder="hawk",
        state="running",
        step="indexing",
        done_count=1_200,
        step_started_count=200,
        total_count=2_200,
        step_started_at=now - timedelta(seconds=100),
        updated_at=now,
        started_at=now,
    )
    waiting = add(client, embedder="swan")
    add(client, embedder="rook", state="failed", problem="The disk is <full>.", ended_at=now)
    page = client.get("/work").text
    assert "1\u202f200</strong> of 2\u202f200 images" in page
    assert "10 a second" in page and "about 2 min left" in page
    assert page.index("Prepare with hawk") < page.index("Prepare with swan")
    assert "The disk is &lt;full&gt;." in page and "Try again" in page
    assert "Nobody does this work at present" in page  # there is no worker
    part = client.get("/work", headers=HTMX).text
    assert "<html" not in part and 'hx-trigger="every 2s"' in part

    for job_id in (running, waiting):
        assert client.post(f"/work/{job_id}/stop").url.path == "/work"
    assert (read(client, running).state, read(client, running).stop_asked) == ("running", True)
    assert read(client, waiting).state == "stopped"
    assert "Stopping after what is under way" in client.get("/work").text


def test_failed_job_is_tried_again_and_others_see_their_own(idle_client):
    client = idle_client
    with client.app.state.database.session() as session:
        other = make_person(session, name="else", role="evaluator")
    own = add(client, embedder="mine", state="failed", problem="No.")
    others = add(client, embedder="theirs", person=other, state="failed", problem="No.")
    assert "asked for by else" in client.get("/work").text
    client.post(f"/work/{own}/again")
    assert (read(client, own).state, read(client, own).problem) == ("waiting", None)
    with client.app.state.database.session() as session:
        get_local_person(session).role = "evaluator"
    page = client.get("/work").text
    assert "Prepare with mine" in page and "theirs" not in page
    stopped = add(client, embedder="old", state="stopped")
    page = client.get("/work").text
    assert "Prepare with old" in page and "Try again" not in page  # was an admin's to ask for
    assert client.post(f"/work/{stopped}/again").status_code == 403
    for deed in ("again", "stop"):
        assert client.post(f"/work/{others}/{deed}").status_code == 404
    assert read(client, others).state == "failed"


def test_work_on_a_collection_in_the_bin_is_not_gone_on_with(idle_client):
    client = idle_client
    job_id = add(client, embedder="hawk", state="failed", problem="No.")
    with client.app.state.database.session() as session:
        session.get_one(Job, job_id).collection.deleted_at = datetime.now(UTC)
    page = client.get("/work").text
    assert "hawk" not in page and "Try again" not in page
    assert client.post(f"/work/{job_id}/again").status_code == 404
    assert read(client, job_id).state == "failed"


def test_what_a_command_prepares_is_shown_to_admins(idle_client):
    client = idle_client
    now = datetime.now(UTC)
    with client.app.state.database.session() as session:
        pond, lake = (make_collection(session, name=name) for name in ("Pond", "Lake"))
        told = {"revision": "1", "dimension": 4, "state": "building", "embedder": "hawk"}
        session.add_all(
            [
                Import(
                    collection_id=pond.id,
                    source="/photos",
                    state="running",
                    found_count=1_000,
                    done_count=360,
                    updated_at=now + timedelta(seconds=3),
                ),
                ImageIndex(collection_id=lake.id, image_count=50, done_count=20, **told),
                # A job that was stopped leaves one, too.
                ImageIndex(collection_id=pond.id, image_count=77, updated_at=now, **told),
                Job(
                    kind="index",
                    collection_id=pond.id,
                    arguments={"embedder": "hawk"},
                    state="stopped",
                    started_at=now - timedelta(minutes=1),
                    ended_at=now + timedelta(seconds=1),
                ),
            ]
        )
    page = client.get("/work").text
    assert "360</strong> of 1\u202f000 files" in page and "20</strong> of 50 images" in page
    assert "Pond, by the command line" in page and "of 77 images" not in page
    assert "Nothing has been asked for" not in page and 'hx-trigger="every 2s"' in page
    page = client.get("/overview").text
    assert "360 of 1\u202f000 files" in page and "20 of 50 images" in page
    assert "Nothing goes on" not in page
    with client.app.state.database.session() as session:
        get_local_person(session).role = "evaluator"
    assert "by the command line" not in client.get("/work").text


def test_nobody_sees_work_without_signing_in(web):
    assert web.get("/work").status_code == 401
