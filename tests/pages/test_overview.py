"""The admins' overview: what it counts, who may see it, folder sizes kept a minute."""

import re
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from app.overview import (
    DiskUse,
    FolderSizes,
    count_unseen_searches,
    list_collection_lines,
    list_people,
    list_recent_searches,
    measure_disk,
    measure_speed,
)
from app.security import get_local_person
from app.tables import Action, ImageIndex, Job, LoginSession, Round, Search
from app.work import list_work
from tests.factories import make_collection, make_images, make_index, make_person
from tests.features.test_detours import Hunt


@pytest.fixture
def hunt(session, settings):
    hunt = Hunt(session, settings)
    for _ in range(4):
        hunt.submit()
    return hunt


def now():
    return datetime.now(UTC)


def test_an_empty_server_says_so(client):
    page = client.get("/overview").text
    for words in ("nobody submitted a round", "Nothing goes on", "no collection yet"):
        assert words in page
    assert "Nobody has opened a search" in page and "data-plot" not in page
    assert 'href="/overview"' in client.get("/").text
    disk = client.get("/overview/disk", headers={"HX-Request": "true"}).text
    assert "are free" in disk and "<html" not in disk
    assert "are free" in client.get("/overview/disk").text  # without scripts: the whole page
    assert client.get("/overview/rounds.csv").text.startswith("hour_utc,rounds\n")


@pytest.mark.parametrize("role", ["evaluator", "ecologist", "viewer"])
def test_only_admins_see_it(client, role):
    with client.app.state.database.session() as session:
        get_local_person(session).role = role
    for address in ("/overview", "/overview/disk", "/overview/rounds.csv"):
        assert client.get(address).status_code == 403
    assert 'href="/overview"' not in client.get("/").text


def test_a_submit_remembers_how_long_it_took_and_a_first_round_took_none(session, hunt):
    rounds = session.scalars(
        select(Round).filter_by(search_id=hunt.search.id).order_by(Round.number)
    ).all()
    assert rounds[0].submitting_ms is None
    for one in rounds[1:]:
        assert one.submitting_ms > one.proposing_ms > 0


def test_waiting_for_ones_turn_counts_to_how_long_a_submit_took(own_database, settings):
    engine = own_database.bind
    with Session(engine, expire_on_commit=False) as session, engine.connect() as other:
        hunt = Hunt(session, settings)
        session.commit()
        other.execute(select(Search.id).with_for_update())

        def release():
            waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            with engine.connect() as looking:
                while not looking.scalar(waits):
                    time.sleep(0.01)
            time.sleep(0.5)
            other.commit()

        releasing = threading.Thread(target=release)
        releasing.start()
        hunt.submit()
        releasing.join()
        made = session.get_one(Round, hunt.search.current_round_id)
        assert made.submitting_ms - made.proposing_ms > 500


def test_speed_is_the_median_and_the_95th_percentile_of_the_last_days(session, hunt):
    rounds = session.scalars(
        select(Round).filter_by(search_id=hunt.search.id).order_by(Round.number)
    ).all()
    for made, took in zip(rounds[1:], (10, 20, 40, 1_000), strict=True):
        made.submitting_ms = took
    speed = measure_speed(session, now=now())
    assert (speed.measured_count, speed.median_ms) == (4, 30)
    assert speed.slow_ms == pytest.approx(40 + 0.85 * 960)
    assert speed.round_count == 4 and len(speed.hours) <= 2
    session.execute(update(Action).values(at=now() - timedelta(days=9)))
    rounds[-1].proposed_at = now() - timedelta(days=9)
    session.flush()
    speed = measure_speed(session, now=now())
    assert (speed.measured_count, speed.median_ms, speed.hours) == (3, 20, [])


def test_searches_tell_who_answered_and_what_stands(session, hunt):
    hunt.undo()
    (line,) = list_recent_searches(session, hunt.person)
    assert line.search is hunt.search and line.people == [hunt.person.name]
    standing = hunt.answers()
    assert line.answer_count == len(standing) > 0
    assert line.yes_count == sum(value == "yes" for value in standing.values())
    (person,) = [one for one in list_people(session) if one.person is hunt.person]
    assert person.search_count == 1 and person.last_seen_at is not None


def test_only_counts_of_searches_that_are_not_shared(session, hunt):
    """Admins are no exception (decision 8)."""
    admin = make_person(session, name="Ann")
    assert hunt.search.owner_id != admin.id
    assert list_recent_searches(session, admin) == []
    assert count_unseen_searches(session, admin) == 1
    assert list_collection_lines(session)[0].search_count == 1
    hunt.search.open_to_view = True
    session.flush()
    assert [one.search for one in list_recent_searches(session, admin)] == [hunt.search]
    assert count_unseen_searches(session, admin) == 0
    hunt.search.deleted_at = now()
    session.flush()
    assert list_recent_searches(session, hunt.person) == []
    assert count_unseen_searches(session, admin) == 0
    assert list_collection_lines(session)[0].search_count == 0
    assert {one.search_count for one in list_people(session)} == {0}


def test_last_seen_is_when_a_browser_last_asked_and_not_when_it_signed_in(session):
    person = make_person(session, name="Ann")
    login = LoginSession(
        token_sha256=b"x" * 32,
        person_id=person.id,
        made_at=now() - timedelta(days=9),
        seen_at=now() - timedelta(hours=1),
        expires_at=now() + timedelta(days=1),
    )
    session.add(login)
    session.flush()
    (line,) = [one for one in list_people(session) if one.person is person]
    assert line.last_seen_at == login.seen_at


def test_collections_work_and_failures_are_listed(session, settings):
    collection = make_collection(session, name="Pond")
    images = make_images(session, collection, 5)
    ready = make_index(session, settings, images)
    broken = ImageIndex(
        collection_id=collection.id,
        embedder="other",
        revision="1",
        dimension=2,
        state="failed",
        image_count=5,
        problem="The model could not be loaded.",
    )
    session.add(broken)
    session.flush()
    (line,) = list_collection_lines(session)
    assert (line.image_count, line.indexes, line.search_count) == (5, [ready], 0)
    assert line.size_bytes == sum(image.size_bytes for image in images)
    images[0].removed_at = now()
    session.flush()
    assert list_collection_lines(session)[0].image_count == 4
    assert list_collection_lines(session)[0].size_bytes == sum(i.size_bytes for i in images[1:])
    person = get_local_person(session)
    add = {"collection_id": collection.id, "arguments": {"embedder": "other"}}
    failed = Job(kind="index", state="failed", problem="No model.", ended_at=now(), **add)
    session.add_all([failed, Job(kind="import", state="waiting", **add)])
    session.flush()
    work = list_work(session, person, now=now())
    assert [len(work[state]) for state in ("running", "waiting", "ended")] == [0, 1, 1]
    collection.deleted_at = now()
    session.flush()
    assert list_collection_lines(session) == []
    assert not any(list_work(session, person, now=now()).values())


def test_the_data_folder_is_measured_by_part_and_at_most_once_a_minute(tmp_path):
    (tmp_path / "indexes" / "7").mkdir(parents=True)
    (tmp_path / "indexes" / "7" / "vectors.npy").write_bytes(b"x" * 700)
    (tmp_path / "thumbnails" / "00").mkdir(parents=True)
    (tmp_path / "thumbnails" / "00" / "a.jpg").write_bytes(b"x" * 30)
    (tmp_path / "address.txt").write_bytes(b"x" * 5)
    (tmp_path / "outside").symlink_to("/usr")
    disk = measure_disk(tmp_path)
    own = {name: size for name, _, size in disk.parts}
    assert own["indexes"] == 700 and own["thumbnails"] == 30 and own[""] < 100
    assert disk.index_bytes == {7: 700} and disk.used_bytes == sum(own.values())

    clock = [0.0]
    sizes = FolderSizes(tmp_path, clock=lambda: clock[0])
    before = sizes.get().used_bytes
    (tmp_path / "thumbnails" / "00" / "b.jpg").write_bytes(b"x" * 11)
    clock[0] = 59
    assert sizes.get().used_bytes == before
    clock[0] = 61
    assert sizes.get().used_bytes == before + 11


def test_space_is_short_below_5_gb_or_a_tenth_of_the_data(tmp_path):
    def use(free, used):
        return DiskUse(tmp_path, [("indexes", "", used)], {}, free, 10**13, 0).is_short

    assert use(4 * 10**9, 10**6) and not use(6 * 10**9, 10**6)
    assert use(90 * 10**9, 10**12) and not use(110 * 10**9, 10**12)


def test_the_page_shows_what_was_counted(client):
    with client.app.state.database.session() as session:
        hunt = Hunt(session, client.app.state.settings)
        hunt.submit()
        hunt.submit()
        name = hunt.search.target_name
        hunt.search.open_to_view = True
    page = client.get("/overview").text
    assert re.search(r'data-figure="rounds">2<', page) and name in page
    assert re.search(r'data-figure="median">\d+ ms<', page) and "hours" in page


def test_the_page_says_which_work_failed_and_what_of_others_is_not_shown(idle_client):
    client = idle_client
    with client.app.state.database.session() as session:
        collection = make_collection(session, name="Pond")
        other = make_person(session, name="Zoe", role="ecologist")
        make_images(session, collection, 1)
        search = Search(
            collection_id=collection.id,
            owner_id=other.id,
            target_name="Secret heron",
            embedder="hawk",
            strategy="random",
            round_size=12,
            seed=1,
        )
        arguments = {"embedder": "hawk"}
        add = {"kind": "index", "collection_id": collection.id, "arguments": arguments}
        failed = Job(state="failed", problem="The disk is <full>.", ended_at=now(), **add)
        session.add_all([search, failed])
    page = client.get("/overview").text
    assert "Prepare with hawk" in page and "The disk is &lt;full&gt;." in page
    assert "Secret heron" not in page and "1 search of other people is not shared" in page
