"""The admins' overview: what it counts, who may see it, folder sizes kept a minute."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from app.overview import (
    DiskUse,
    FolderSizes,
    list_collection_lines,
    list_people,
    list_recent_searches,
    list_work,
    measure_disk,
    measure_speed,
)
from app.security import get_local_person
from app.tables import Action, ImageIndex, Import, Replay, Round
from tests.factories import make_collection, make_images, make_index
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
    (line,) = list_recent_searches(session)
    assert line.search is hunt.search and line.people == [hunt.person.name]
    standing = hunt.answers()
    assert line.answer_count == len(standing) > 0
    assert line.yes_count == sum(value == "yes" for value in standing.values())
    (person,) = [one for one in list_people(session) if one.person is hunt.person]
    assert person.search_count == 1 and person.last_seen_at is not None


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
    long_ago = ImageIndex(
        collection_id=collection.id,
        embedder="old",
        revision="1",
        dimension=2,
        state="failed",
        image_count=5,
        problem="Forgotten.",
        updated_at=now() - timedelta(days=40),
    )
    person = get_local_person(session)
    waiting = Replay(
        collection_id=collection.id,
        person_id=person.id,
        settings={},
        state="running",
        run_count=8,
        done_count=3,
    )
    session.add_all([broken, long_ago, waiting])
    session.flush()
    (line,) = list_collection_lines(session)
    assert (line.image_count, line.indexes, line.search_count) == (5, [ready], 0)
    assert line.size_bytes == sum(image.size_bytes for image in images)
    going_on, failed = list_work(session, now=now())
    assert [(one.state, one.done, one.total) for one in going_on] == [("running", 3, 8)]
    assert [one.problem for one in failed] == ["The model could not be loaded."]
    session.add(Import(collection_id=collection.id, source="/photos", state="running"))
    session.flush()
    going_on, _ = list_work(session, now=now())
    assert going_on[0].title == "Preparing Pond"


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
    page = client.get("/overview").text
    assert re.search(r'data-figure="rounds">2<', page) and name in page
    assert re.search(r'data-figure="median">\d+ ms<', page) and "hours" in page
