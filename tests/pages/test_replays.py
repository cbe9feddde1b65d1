"""Replays in the browser: started, watched, read, stopped, gone on with, compared."""

import re
import threading
import time
from datetime import datetime
from functools import partial

import pytest
from sqlalchemy import func, select

from app import replays
from app.evaluation import RUNS, ReplaySettings
from app.jobs import Stopping
from app.labelling import record_labels
from app.replay_dashboard import COURSES
from app.replays import (
    get_replay,
    list_unfinished_replays,
    play_replay,
    read_played,
    resume_replay,
    start_replay,
    stop_replay,
)
from app.security import get_local_person
from app.store import replay_folder
from app.tables import Collection, Image, ImageIndex, OracleLabel, Person, Replay
from tests.factories import make_collection, make_images, make_index

pytestmark = pytest.mark.slow

PLAN = {"targets": ["heron"], "strategies": ["pf-ma", "random"], "rounds": 2, "size": 6, "seeds": 1}


@pytest.fixture
def pond(client):
    """Signed in, with a labelled collection; `client.here` is the address of its replays."""
    state = client.app.state
    with state.database.session() as session:
        collection = make_collection(session, notice="synthetic")
        images = make_images(session, collection, 100)
        make_index(session, state.settings, images)
        known = {image.id: {"heron" if n < 10 else "empty"} for n, image in enumerate(images)}
        record_labels(session, collection.id, known)
        client.collection_id = collection.id
    client.here = f"/collections/{collection.id}/replays"
    return client


def play(pond, **change) -> str:
    """Start a replay and wait for its end; its address."""
    answer = pond.post(pond.here, data=PLAN | change, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    address = answer.headers["location"]
    for _ in range(600):
        page = pond.get(f"{address}/progress", headers={"HX-Request": "true"})
        if "HX-Refresh" in page.headers:
            return address
        time.sleep(0.1)
    raise AssertionError(page.text)


def test_filtered_replay_looks_at_a_part_and_says_so(pond):
    with pond.app.state.database.session() as session:
        for n, image in enumerate(session.scalars(select(Image).order_by(Image.id))):
            image.captured_at = datetime(2025, 7 if n % 2 else 5, 1, 12)
    assert "of the day" in pond.get(pond.here).text  # the fields of a filter
    wrong = pond.post(pond.here, data=PLAN | {"hour_from": "25"})
    assert wrong.status_code == 422 and "no hour" in wrong.text
    address = play(pond, month="7")
    assert "only July" in pond.get(pond.here).text
    report = pond.get(address).text
    assert "month=7" in report
    # The run beside the truth: five of the ten are left, one opens and one is held out.
    run = pond.get(f"{address}/run", params={"target": "heron", "strategy": "random", "whole": "1"})
    assert run.status_code == 200
    manifest = pond.get(f"{address}/manifest.json").json()
    assert manifest["target_sizes"] == {"heron": 5}
    odd = {image.id for image in list_july(pond)}
    rounds = read_played(pond.app.state.settings, get_one(pond, address))[1]
    assert {i for run in rounds for shown in run.shown for i in shown} <= odd
    # Where places are rounded, its box is of whole cells though an admin drew it: all see it.
    with pond.app.state.database.session() as session:
        session.get_one(Collection, pond.collection_id).place_grid = 0.1
        for image in session.scalars(select(Image)):
            image.latitude, image.longitude = 47.86531, 12.43174
    box = {"south": "47.8653", "north": "47.8654", "west": "12.4317", "east": "12.4318"}
    address = play(pond, **box)
    assert "only 47.85° N–47.95° N" in pond.get(pond.here).text
    for page in (address, f"{address}/manifest.json", f"{address}/report.html"):
        assert "47.865" not in pond.get(page).text
    assert "south=47.85" in pond.get(address).text


def test_what_is_wrong_with_the_form_is_told_before_what_the_labels_lack(pond):
    with pond.app.state.database.session() as session:
        first = session.scalars(select(OracleLabel)).first()
        record_labels(session, pond.collection_id, {first.image_id: set()})
    page = pond.get(pond.here).text
    assert f'href="/collections/{pond.collection_id}/labels"' in page
    for change, sentence in (
        ({"strategies": ["best"]}, "There is no strategy “best”"),
        ({"rounds": "-3"}, "rounds must be at least 1"),
        ({"targets": []}, "There is no target"),
        ({"month": "7"}, "The filter keeps no image"),
        ({}, "1 image without a known label"),
    ):
        refused = pond.post(pond.here, data=PLAN | change)
        assert refused.status_code == 422 and sentence in refused.text, sentence


def test_run_beside_the_truth_stays_when_labels_are_corrected_later(pond):
    address = play(pond)
    run = {"target": "heron", "strategy": "random", "whole": "1"}
    before = pond.get(f"{address}/run", params=run)
    assert before.status_code == 200
    with pond.app.state.database.session() as session:
        known = session.scalars(select(OracleLabel).order_by(OracleLabel.image_id)).all()
        known[0].label, known[50].label = "empty", "heron"  # as many as before, and others
        known[1].label = "empty"
    assert pond.get(f"{address}/run", params=run).text == before.text


def test_run_beside_the_truth_stays_when_other_images_come_under_its_filter(pond):
    with pond.app.state.database.session() as session:
        for n, image in enumerate(session.scalars(select(Image).order_by(Image.id))):
            image.captured_at = datetime(2025, 7 if n % 2 else 5, 1, 12)
    address = play(pond, month="7")
    run = {"target": "heron", "strategy": "random", "whole": "1"}
    before = pond.get(f"{address}/run", params=run)
    assert before.status_code == 200
    rounds = read_played(pond.app.state.settings, get_one(pond, address))[1]
    seen = {i for one in rounds for shown in [one.opening, *one.shown] for i in shown}
    with pond.app.state.database.session() as session:
        ids = select(OracleLabel.image_id).where(OracleLabel.label == "empty")
        for image in session.scalars(select(Image).where(Image.id.in_(ids))):
            if image.id not in seen:
                image.captured_at = datetime(2025, 7, 1, 12)
    settings = pond.app.state.settings
    for course in (replay_folder(settings, get_one(pond, address).id) / COURSES).iterdir():
        course.unlink()
    assert pond.get(f"{address}/run", params=run).text == before.text


def list_july(pond):
    with pond.app.state.database.session() as session:
        return list(session.scalars(select(Image).where(Image.captured_at > datetime(2025, 6, 1))))


def get_one(pond, address):
    with pond.app.state.database.session() as session:
        return get_replay(session, pond.collection_id, int(address.rsplit("/", 1)[1]))


def test_replay_is_played_reported_kept_and_compared(pond):
    page = pond.get(pond.here).text
    assert 'value="anchoral:pf-ma"' in page
    assert "No past" not in page and 'value="heron" checked' in page and "synthetic" in page
    first = play(pond)
    report = pond.get(first).text
    assert "held out" in report and "Round 2" in report and "Round 3" not in report
    assert "Rounds to 95 % recall" in report and "Precision of rounds" in report
    assert "Any one run" in report and "<svg" in report
    chosen = pond.get(first, params={"target": "heron", "strategy": "random", "seed": 0}).text
    assert re.search(r"<option selected>random</option>", chosen)
    assert len(re.findall(r'class="shot (?:yes|no)"', chosen)) == 1 + 2 * 6
    assert 'style="' not in report  # the content security policy would drop it
    rounds = pond.get(f"{first}/rounds.csv")
    assert rounds.headers["content-disposition"].startswith("attachment")
    assert len(rounds.text.splitlines()) == 1 + 2 * 2
    assert pond.get(f"{first}/report.html").status_code == 200
    assert f'href="{first}/held_out.csv"' in report
    held_out = pond.get(f"{first}/held_out.csv").text.splitlines()
    assert held_out[0] == "target,seed,image_id,file" and len(held_out) == 1 + 20

    second = play(pond, rounds=3)
    listed = pond.get(pond.here).text
    ids = [address.rsplit("/", 1)[1] for address in (first, second)]
    assert [listed.count(f'value="{one}"') for one in ids] == [1, 1]
    both = pond.get(f"{pond.here}/compare", params={"of": ids}).text
    assert "rounds" in both and "Round by round" in both
    alone = pond.get(f"{pond.here}/compare", params={"of": ids[:1]})
    assert alone.status_code == 422 and "two replays" in alone.text


def test_report_and_comparison_of_few_targets_say_so_once(pond):
    ids = [play(pond, rounds=rounds).rsplit("/", 1)[1] for rounds in (1, 2)]
    report = pond.get(f"{pond.here}/{ids[0]}").text
    assert report.count("Only 1 target") == 1
    assert report.index("Only 1 target") < report.index('<table class="figures">')
    both = pond.get(f"{pond.here}/compare", params={"of": ids}).text
    assert both.count("Only 1 target") == 1 and "Both replays" in both
    assert both.index("Only 1 target") > both.index("Figures</h2>")
    for page in (report, both):
        assert not re.search(r'class="muted range">[^<]', page)
        assert not re.search(r"<b>(better|worse)</b>", page)


def test_targets_are_grouped_by_size_and_the_unticked_say_why(pond):
    with pond.app.state.database.session() as session:
        images = make_images(
            session, session.get_one(Collection, pond.collection_id), 201, first=200
        )
        counts = {"smew": 6, "coot": 201, "grebe": 9, "teal": 200}
        known = {
            image.id: {label for label, count in counts.items() if n < count}
            for n, image in enumerate(images)
        }
        record_labels(session, pond.collection_id, known)
    page = pond.get(pond.here).text
    listed = re.findall(r'name="targets"\s+value="(\w+)"( checked)?', page)
    assert listed == [
        ("heron", " checked"),
        ("empty", " checked"),
        ("teal", " checked"),
        ("smew", ""),
        ("grebe", ""),
        ("coot", ""),
    ]
    places = [
        page.index(words)
        for words in ("10 to 200 images", 'value="heron"', "Fewer than 10 images: too few to tell",
                      'value="smew"', "More than 200 images: ", 'value="coot"')
    ]  # fmt: skip
    assert places == sorted(places)
    assert "Rare ones tell most" not in page
    # Shown again for another reason, it has the same ticks.
    again = pond.get(f"{pond.here}/compare").text
    assert re.findall(r'name="targets"\s+value="(\w+)"( checked)?', again) == listed


def test_one_run_is_shown_beside_the_truth_after_any_round(pond):
    address = play(pond, rounds=3)
    assert f"{address}/run?target=heron" in pond.get(address).text
    here, run = f"{address}/run", {"target": "heron", "strategy": "random", "seed": 0}
    page = pond.get(here, params=run).text
    assert "after 3 rounds of 3" in page and "Chosen by random" in page
    earlier = pond.get(here, params=run | {"round": 2}).text
    assert "after 2 rounds of 3" in earlier and "round=1" in earlier and "round=3" in earlier
    for part, words in (("moment", "truly left to find"), ("rounds", "reached")):
        told = pond.get(f"{here}/{part}", params=run | {"round": 2}, headers={"HX-Request": "true"})
        assert told.status_code == 200 and words in told.text and "<html" not in told.text
        # Without scripts the link to a part leads to the whole page.
        whole = pond.get(f"{here}/{part}", params=run | {"round": 2}).text
        assert words in whole and "after 2 rounds of 3" in whole and "hx-get" not in whole
    table = pond.get(f"{here}/rounds.csv", params=run)
    assert table.headers["content-disposition"].startswith("attachment")
    lines = table.text.splitlines()
    assert lines[0].startswith("round,found,recall_said") and len(lines) == 1 + 3
    assert "nan" not in table.text
    assert pond.get(here, params=run | {"round": 4}).status_code == 404
    assert pond.get(here, params=run | {"seed": 5}).status_code == 404
    with pond.app.state.database.session() as session:
        get_local_person(session).role = "ecologist"
    assert pond.get(here, params=run).status_code == 403


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"targets": []}, "no target"),
        ({"targets": ["osprey"]}, "osprey"),
        ({"strategies": ["best"]}, "best"),
        ({"rounds": 0}, "rounds"),
        ({"rounds": 10**9}, "At most"),
    ],
)
def test_wrong_forms_are_shown_again_with_a_sentence(pond, change, sentence):
    answer = pond.post(pond.here, data=PLAN | change)
    assert answer.status_code == 422
    assert sentence in answer.text
    with pond.app.state.database.session() as session:
        assert session.query(Replay).count() == 0


def test_collection_without_labels_says_how_to_add_them(client):
    with client.app.state.database.session() as session:
        collection = make_collection(session)
    page = client.get(f"/collections/{collection.id}/replays")
    assert page.status_code == 200 and "no known labels" in page.text


def test_only_evaluators_see_replays(pond):
    with pond.app.state.database.session() as session:
        get_local_person(session).role = "ecologist"
    assert pond.get(pond.here).status_code == 403
    with pond.app.state.database.session() as session:
        get_local_person(session).role = "evaluator"
    assert pond.get(pond.here).status_code == 200


def test_replay_of_another_collection_is_not_found(pond):
    address = play(pond, strategies=["random"], rounds=1)
    replay_id = address.rsplit("/", 1)[1]
    with pond.app.state.database.session() as session:
        other = make_collection(session, name="Lake")
    assert pond.get(f"/collections/{other.id}/replays/{replay_id}").status_code == 404


def test_stopped_replay_goes_on_and_an_unfinished_one_is_taken_up(session, database, settings):
    person = Person(name="me", role="admin")
    collection = Collection(name="Pond", source="/photos")
    session.add_all([person, collection])
    session.flush()
    images = make_images(session, collection, 30)
    make_index(session, settings, images)
    session.add_all(OracleLabel(image_id=image.id, label="heron") for image in images)
    session.flush()
    plan = ReplaySettings(("heron",), ("random",), rounds=1, seeds=1)
    waiting, stopped, running = (
        start_replay(session, collection, person, plan, settings=settings) for _ in range(3)
    )
    stop_replay(session, stopped)
    running.state = "running"
    session.flush()
    assert list_unfinished_replays(database) == [waiting.id, running.id]
    assert stopped.state == "stopped"
    assert resume_replay(session, stopped)
    assert not resume_replay(session, stopped)


@pytest.fixture
def in_line(own_database, settings):
    """A replay of two runs that waits, in a database that several servers can share."""
    with own_database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 30)
        make_index(session, settings, images)
        session.add_all(
            OracleLabel(image_id=image.id, label="heron" if n < 10 else "empty")
            for n, image in enumerate(images)
        )
        session.flush()
        plan = ReplaySettings(("heron",), ("random",), rounds=1, size=4, seeds=2)
        person = get_local_person(session)
        return start_replay(session, collection, person, plan, settings=settings).id


def state_of(database, replay_id) -> tuple[str, str | None]:
    with database.session() as session:
        made = session.get_one(Replay, replay_id)
        return made.state, made.problem


def test_replay_is_not_gone_on_with_once_its_filter_keeps_other_images(own_database, settings):
    with own_database.session() as session:
        collection = make_collection(session)
        images = make_images(session, collection, 40)
        make_index(session, settings, images)
        for n, image in enumerate(images):
            image.captured_at = datetime(2025, 7, 1, 12)
            session.add(OracleLabel(image_id=image.id, label="heron" if n < 10 else "empty"))
        images[-1].captured_at = datetime(2025, 5, 1, 12)
        session.flush()
        plan = ReplaySettings(("heron",), ("random",), rounds=1, seeds=3, where=("month=7",))
        person = get_local_person(session)
        made = start_replay(session, collection, person, plan, settings=settings).id
        other = images[-1].id
    played = 0

    def stop_after_one():
        nonlocal played
        played += 1
        if played > 1:
            with own_database.session() as session:
                stop_replay(session, session.get_one(Replay, made))

    def shift_clock(month):
        with own_database.session() as session:
            session.get_one(Image, other).captured_at = datetime(2025, month, 1, 12)

    def go_on():
        with own_database.session() as session:
            assert resume_replay(session, session.get_one(Replay, made))
        play_replay(own_database, made, settings=settings, go_on=lambda: None)
        return state_of(own_database, made)

    play_replay(own_database, made, settings=settings, go_on=stop_after_one)
    assert state_of(own_database, made) == ("stopped", None)
    shift_clock(7)
    state, problem = go_on()
    assert state == "failed"
    assert "not what it was when it began: which images it looks at." in problem
    assert str(settings.home) not in problem
    shift_clock(5)
    assert go_on() == ("done", None)


def test_replay_goes_on_with_the_index_it_began_with_or_says_that_it_is_gone(
    own_database, settings, in_line
):
    def stop_after_one():
        with own_database.session() as session:
            made = session.get_one(Replay, in_line)
            if list((replay_folder(settings, in_line) / RUNS).glob("*.json")):
                stop_replay(session, made)

    def go_on():
        with own_database.session() as session:
            assert resume_replay(session, session.get_one(Replay, in_line))
        play_replay(own_database, in_line, settings=settings, go_on=lambda: None)
        return state_of(own_database, in_line)

    play_replay(own_database, in_line, settings=settings, go_on=stop_after_one)
    assert state_of(own_database, in_line) == ("stopped", None)
    with own_database.session() as session:
        collection = session.scalars(select(Collection)).one()
        begun = session.scalars(select(ImageIndex)).one().id
        images = list(session.scalars(select(Image).order_by(Image.id)))
        added = make_images(session, collection, 1, first=30)
        make_index(session, settings, [*images, *added])  # of the new one nothing is known
    folder = settings.home / "indexes" / str(begun)
    away = folder.rename(folder.with_name("away"))
    state, problem = go_on()
    assert state == "failed" and "with which this replay began is not there any more" in problem
    away.rename(folder)
    assert go_on() == ("done", None)
    with own_database.session() as session:
        manifest, runs = read_played(settings, session.get_one(Replay, in_line))
    assert manifest["index"]["count"] == 30 and len(runs) == 2


def test_unforeseen_fault_ends_a_replay_with_a_sentence(
    own_database, settings, in_line, monkeypatch
):
    def fail(*_given, **_more):
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr(replays, "write_report", fail)
        play_replay(own_database, in_line, settings=settings, go_on=lambda: None)
    state, problem = state_of(own_database, in_line)
    assert state == "failed" and "fault in Rarefind" in problem
    with own_database.session() as session:
        assert resume_replay(session, session.get_one(Replay, in_line))
    play_replay(own_database, in_line, settings=settings, go_on=lambda: None)
    assert state_of(own_database, in_line) == ("done", None)


def test_replay_cut_off_with_its_server_is_taken_up_again(own_database, settings, in_line):
    def stop():
        raise Stopping

    with pytest.raises(Stopping):
        play_replay(own_database, in_line, settings=settings, go_on=stop)
    assert state_of(own_database, in_line) == ("running", None)
    assert list_unfinished_replays(own_database) == [in_line]
    assert state_of(own_database, in_line) == ("waiting", None)


def test_two_servers_do_not_play_one_replay(own_database, settings, in_line):
    played = []

    def look_from_another_server():
        played.append("first")
        assert list_unfinished_replays(own_database) == []
        play_replay(own_database, in_line, settings=settings, go_on=partial(played.append, "other"))
        assert state_of(own_database, in_line) == ("running", None)

    play_replay(own_database, in_line, settings=settings, go_on=look_from_another_server)
    assert set(played) == {"first"}
    assert state_of(own_database, in_line) == ("done", None)


def test_replay_resumed_on_another_server_is_played_once_the_first_lets_go(
    own_database, settings, in_line
):
    other_waits = threading.Event()
    other = threading.Thread(
        target=play_replay,
        args=(own_database, in_line),
        kwargs={"settings": settings, "go_on": other_waits.set},
    )

    def stop_and_resume():
        with own_database.session() as session:
            made = session.get_one(Replay, in_line)
            stop_replay(session, made)
            resume_replay(session, made)
        other.start()
        assert other_waits.wait(30)

    play_replay(own_database, in_line, settings=settings, go_on=stop_and_resume)
    other.join(60)
    assert state_of(own_database, in_line) == ("done", None)


def test_page_says_how_many_images_lack_a_label(pond):
    assert "without a known label" not in pond.get(pond.here).text
    with pond.app.state.database.session() as session:
        images = session.scalars(select(Image).order_by(Image.id)).all()
        record_labels(session, pond.collection_id, {one.id: set() for one in images[:3]})
        images[0].removed_at = func.now()
    page = pond.get(pond.here).text
    assert "2 images without a known label" in page
