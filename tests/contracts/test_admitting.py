"""Places and lines: beyond them a page at once, each in their turn, answers before the rest."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers

from app import admitting
from app.admitting import Admitting, Call, Lane, is_costly, read_call
from app.database import MOST_AT_ONCE, check_connections, connect_database, count_places
from app.errors import DatabaseNotUsable, ServerBusy
from app.security import add_token, get_local_person
from app.settings import Settings
from app.tables import Answer
from tests.conftest import open_web
from tests.factories import make_collection, make_images, make_index


def run(play: Callable[[], Coroutine[None, None, object]]) -> object:
    """In a thread of its own: a browser that another test has open runs a loop in this one."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(play())).result()


async def settle() -> None:
    """Until whoever can go on has."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- Lines ---------------------------------------------------------------------------------------


def come_to(lane: Lane, begun: list[str], call: Call) -> asyncio.Task[None]:
    """Somebody who waits for a place, and is noted when they have it."""

    async def come() -> None:
        await lane.enter(call)
        begun.append(call.who)

    return asyncio.ensure_future(come())


def test_lines_take_turns_and_nobody_gets_more_than_half():
    async def play() -> list[str]:
        lane = Lane(places=4, most_waiting=40)
        begun: list[str] = []
        coming = [come_to(lane, begun, Call("busy")) for _ in range(8)]
        await settle()
        assert begun == ["busy"] * 2
        coming += [come_to(lane, begun, Call(who)) for who in ("ana", "ben", "ana", "ana")]
        await settle()
        assert begun == ["busy", "busy", "ana", "ben"]
        for who in ("busy", "ana", "ben", "busy", "ana"):
            lane.leave(Call(who))
            await settle()
        for one in coming:
            one.cancel()
        return begun[4:]

    # In turn; and where "busy" has half of the places, somebody else is next.
    assert run(play) == ["busy", "ana", "ana", "busy"]


def test_who_can_wait_lets_others_go_first_until_their_patience_ends():
    async def play() -> list[str]:
        lane = Lane(places=2, most_waiting=40)
        begun: list[str] = []
        for who in ("somebody", "else"):
            await lane.enter(Call(who))
        coming = [
            come_to(lane, begun, Call(who, patience_s))
            for who, patience_s in (
                ("answer", 60.0),
                ("impatient answer", 0.01),
                ("picture", 0.5),
                ("submit", 0.0),
                ("submit too", 0.0),
                ("gone", 0.0),
            )
        ]
        await settle()
        assert lane.waiting == 6
        coming[-1].cancel()
        await asyncio.sleep(0.02)
        late = come_to(lane, begun, Call("late submit"))
        await settle()
        for who in ("somebody", "else", "submit", "submit too", "impatient answer", "late submit"):
            lane.leave(Call(who))
            await settle()
        await asyncio.wait_for(asyncio.gather(*coming[:-1], late), 1)
        assert lane.waiting == 0
        return begun

    assert run(play) == [
        *("submit", "submit too", "impatient answer", "late submit", "picture", "answer")
    ]


def test_what_changes_one_search_comes_one_by_one_and_holds_nobody_else_up():
    async def play() -> list[str]:
        lane = Lane(places=4, most_waiting=40)
        begun: list[str] = []
        first = Call("ana", changes="/searches/1")
        coming = [
            come_to(lane, begun, call)
            for call in (
                first,
                Call("ben", changes="/searches/1"),
                Call("ben"),
                Call("cem", changes="/searches/2"),
                Call("dora"),
            )
        ]
        await settle()
        assert begun == ["ana", "cem", "dora"]  # ben's own come in the order they were sent
        coming[1].cancel()
        await settle()
        assert begun[3:] == ["ben"]
        again = come_to(lane, begun, Call("eva", changes="/searches/1"))
        lane.leave(Call("dora"))
        await settle()
        assert not again.done()
        lane.leave(first)
        await asyncio.wait_for(again, 1)
        return begun[4:]

    assert run(play) == ["eva"]


def test_a_lane_is_calm_when_nobody_was_at_work_for_most_of_the_last_seconds(monkeypatch):
    monkeypatch.setattr(admitting, "CALM_S", 0.2)

    async def play() -> None:
        lane = Lane(places=4, most_waiting=40)
        await lane.enter(Call("ana"))
        assert lane.is_calm  # it is she who asks
        await lane.enter(Call("ben"))
        assert not lane.is_calm
        await asyncio.sleep(0.3)
        lane.leave(Call("ben"))
        assert not lane.is_calm  # there was work all the time
        lane.leave(Call("ana"))
        await asyncio.sleep(0.5)
        await lane.enter(Call("ana"))
        assert lane.is_calm

    run(play)


@pytest.mark.parametrize(
    ("method", "path", "patience_s", "changes"),
    [
        ("POST", "/searches/7/submit", 0.0, "/searches/7"),
        ("POST", "/searches/7/answers", admitting.BY_ITSELF_S, "/searches/7"),
        ("POST", "/api/v1/searches/7/answers", 0.0, "/searches/7"),  # a program waits for it
        ("POST", "/searches/7/here", admitting.BY_ITSELF_S, "/searches/7"),
        ("GET", "/searches/7/upcoming", admitting.BY_ITSELF_S, None),
        ("GET", "/images/12/small", admitting.PICTURES_S, None),
        ("GET", "/images/12/original", 0.0, None),
        ("GET", "/searches/7", 0.0, None),
        ("GET", "/searches/7/results", 0.0, None),
        ("POST", "/searches/7", 0.0, None),
        ("POST", "/collections/7/searches", 0.0, None),
    ],
)
def test_how_long_a_request_can_wait_and_what_it_changes(method, path, patience_s, changes):
    scope = {"type": "http", "method": method, "path": path, "client": ("10.0.0.7", 5)}
    assert read_call(scope, {b"cookie": b"x"}) == Call("x", patience_s, changes)
    assert read_call(scope, {}).who == "10.0.0.7"


def test_too_many_are_refused_at_once_the_one_who_asks_for_most_first():
    async def play() -> None:
        lane = Lane(places=1, most_waiting=8)
        await lane.enter(Call("somebody"))
        waiting = [asyncio.ensure_future(lane.enter(Call("busy"))) for _ in range(2)]
        await settle()
        with pytest.raises(ServerBusy) as refused:  # a quarter of the line is theirs
            await lane.enter(Call("busy"))
        assert refused.value.wait_s and refused.value.status == 503
        others = [asyncio.ensure_future(lane.enter(Call(f"other {number}"))) for number in range(6)]
        await settle()
        with pytest.raises(ServerBusy):
            await lane.enter(Call("one more"))
        lane.leave(Call("somebody"))
        await asyncio.wait([*waiting, *others], return_when=asyncio.FIRST_COMPLETED)
        assert [one.done() for one in (*waiting, *others)] == [True] + [False] * 7
        for one in (*waiting, *others):
            one.cancel()

    run(play)


def test_who_waits_too_long_or_goes_away_leaves_no_place_taken(monkeypatch):
    monkeypatch.setattr(admitting, "LONGEST_WAIT_S", 0.05)

    async def play() -> None:
        lane = Lane(places=1, most_waiting=8)
        await lane.enter(Call("somebody"))
        with pytest.raises(ServerBusy):
            await lane.enter(Call("late"))
        gone = asyncio.ensure_future(lane.enter(Call("gone")))
        await settle()
        gone.cancel()
        await settle()
        assert lane.waiting == 0
        just = asyncio.ensure_future(lane.enter(Call("just")))
        await settle()
        lane.leave(Call("somebody"))  # the place is theirs,
        just.cancel()  # but they have not heard of it
        await settle()
        await asyncio.wait_for(lane.enter(Call("next")), 1)
        lane.leave(Call("next"))
        await asyncio.wait_for(lane.enter(Call("next")), 1)

    run(play)


def test_who_goes_away_as_a_place_becomes_free_does_not_take_it_along():
    async def play() -> None:
        lane = Lane(places=1, most_waiting=8)
        await lane.enter(Call("somebody"))
        gone = asyncio.ensure_future(lane.enter(Call("gone")))
        following = asyncio.ensure_future(lane.enter(Call("next")))
        await settle()
        gone.cancel()
        lane.leave(Call("somebody"))  # in the same moment
        await asyncio.wait_for(following, 1)
        assert lane.waiting == 0

    run(play)


# --- Requests ------------------------------------------------------------------------------------


def ask(app, path: str, *, who: str = "x", receive=None, send=None, **headers: str):
    """A request as a server hands it on; its task."""
    told = [(b"cookie", who.encode())] + [
        (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
    ]
    scope = {"type": "http", "path": path, "method": "GET", "headers": told, "client": None}

    async def nothing_more():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def ignore(_message):
        pass

    return asyncio.ensure_future(app(scope, receive or nothing_more, send or ignore))


def test_what_takes_long_never_takes_the_places_of_answers():
    async def play() -> None:
        begun: list[str] = []
        held = asyncio.Event()

        async def work(scope, _receive, _send):
            begun.append(scope["path"])
            if "dashboard" in scope["path"]:
                await held.wait()

        app = Admitting(work, places=4, most_waiting=40)
        slow = [ask(app, "/searches/1/dashboard", who=f"{number}") for number in range(9)]
        await settle()
        assert begun == ["/searches/1/dashboard"]
        await asyncio.wait_for(ask(app, "/searches/1/answers", who="0"), 1)
        await asyncio.wait_for(ask(app, "/searches/1/submit", who="0"), 1)
        held.set()
        await asyncio.wait_for(asyncio.gather(*slow), 1)
        assert len(begun) == 11

    run(play)


def test_answers_pictures_and_signing_in_go_on_while_grids_take_their_time():
    async def play() -> None:
        held = asyncio.Event()

        async def work(scope, _receive, _send):
            if scope["path"] in ("/searches/1/submit", "/collections/1/searches", "/"):
                await held.wait()

        app = Admitting(work, places=5, most_waiting=40)
        slow = [ask(app, "/searches/1/submit", who=f"{number}") for number in range(9)]
        slow += [ask(app, "/collections/1/searches", who=f"{number}") for number in range(9)]
        slow += [ask(app, "/", who=f"{number}") for number in range(9)]
        await settle()
        for path in ("/searches/2/answers", "/images/7/small", "/sign-in"):
            await asyncio.wait_for(ask(app, path, who="somebody"), 1)
        assert not any(one.done() for one in slow)
        held.set()
        await asyncio.wait_for(asyncio.gather(*slow), 1)

    run(play)


def test_a_body_that_does_not_come_and_a_long_download_hold_no_place():
    async def play() -> None:
        never = asyncio.Event()

        async def no_body():
            await never.wait()

        async def work(scope, _receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            if scope["path"] == "/exports-of-hours":
                await never.wait()

        app = Admitting(work, places=3, most_waiting=40)  # one for each kind
        slow = [ask(app, "/searches/1/answers", who="s", receive=no_body) for _ in range(3)]
        long = [ask(app, "/exports-of-hours", who="d") for _ in range(3)]
        await settle()
        await asyncio.wait_for(ask(app, "/searches/1/answers"), 1)
        await asyncio.wait_for(ask(app, "/exports"), 1)
        for one in (*slow, *long):
            one.cancel()

    run(play)


@pytest.mark.parametrize(
    ("path", "headers", "costly"),
    [
        ("/searches/7/answers", {}, False),
        ("/searches/7/submit", {"content-length": "900"}, False),
        ("/searches/7", {}, False),
        ("/images/7/small", {}, False),
        ("/searches/7/dashboard/variety", {}, True),
        ("/searches/7/export.csv", {}, True),
        ("/api/v1/searches/7/export", {}, True),
        ("/collections/7/photos", {"content-type": "multipart/form-data; boundary=x"}, True),
        ("/collections/7/metadata", {"content-length": "5000000"}, True),
    ],
)
def test_what_counts_as_taking_long(path, headers, costly):
    assert is_costly({"path": path}, dict(Headers(headers).raw)) is costly


# --- The whole server ----------------------------------------------------------------------------


def open_search(web, own_database, settings) -> tuple[dict, str, dict]:
    """Headers with a token, the address of a search, and its first round."""
    with own_database.session() as session:
        images = make_images(session, make_collection(session), 30)
        make_index(session, settings, images)
        token = add_token(session, get_local_person(session), "p")
    headers = {"Authorization": f"Bearer {token}"}
    path = f"/api/v1/collections/{images[0].collection_id}/searches"
    body = {"target_name": "heron", "image_ids": [images[0].id], "round_size": 6}
    search_id = web.post(path, json=body, headers=headers).json()["search_id"]
    here = f"/searches/{search_id}"
    return headers, here, web.get(f"/api/v1{here}/round", headers=headers).json()


def test_a_full_server_says_so_at_once_and_no_answer_is_lost(
    settings, own_database, own_database_url
):
    few = settings.model_copy(update={"connections": 4, "most_waiting": 4})
    with open_web(few, own_database_url) as web, ThreadPoolExecutor(20) as pool:
        headers, here, grid = open_search(web, own_database, settings)
        image_id = grid["images"][0]["image_id"]
        gestures = [
            {"gesture_key": f"g{number}", "round_id": grid["round_id"], "values": {image_id: value}}
            for number, value in enumerate(["yes", "no"] * 6)
        ]

        def send(gesture):
            begun = time.monotonic()
            asked = headers | {"Accept": "application/json"}
            reply = web.post(f"{here}/answers", json=gesture, headers=asked)
            return reply, time.monotonic() - begun

        with own_database.session() as session:
            session.execute(text("SELECT FROM searches FOR UPDATE"))  # who has a place must wait
            sent = [pool.submit(send, gesture) for gesture in gestures]
            deadline = time.monotonic() + 20
            while sum(one.done() for one in sent) < 8 and time.monotonic() < deadline:
                time.sleep(0.05)
            refused = [one.result() for one in sent if one.done()]
            assert web.get("/api/v1/health").status_code == 200
            page = web.get("/sign-in", headers=headers | {"Accept": "text/html"})
        # One person has the one place for it, and a quarter of the line: all others hear.
        assert len(refused) >= 8
        assert all(took < 5 for _, took in refused)
        for reply, _ in refused:
            assert reply.status_code == 503
            assert int(reply.headers["Retry-After"]) > 0
            assert "nothing that was saved is lost" in reply.json()["detail"]
        assert page.status_code == 503
        assert "Many people are asking at once" in page.text
        assert page.headers["X-Frame-Options"] == "DENY"
        told = [one.result()[0] for one in sent]
        saved = sum(reply.status_code == 200 for reply in told)
        again = [send(gesture)[0] for gesture in gestures]  # as the page does, with the same keys
        assert [reply.status_code for reply in again] == [200] * len(gestures)
        with own_database.session() as session:
            given = select(Answer.value).where(Answer.image_id == image_id).order_by(Answer.id)
            stored = session.scalars(given).all()
        assert saved + sum(reply.status_code == 503 for reply in told) == len(gestures)
        assert set(stored) == {"yes", "no"}
        assert all(one != following for one, following in pairwise(stored))


def test_who_waits_for_somebody_else_s_lock_hears_of_it(settings, own_database, own_database_url):
    hasty = settings.model_copy(update={"longest_lock_s": 0.3})
    with open_web(hasty, own_database_url) as web:
        headers, here, grid = open_search(web, own_database, settings)
        values = {grid["images"][0]["image_id"]: "yes"}
        body = {"gesture_key": "a", "round_id": grid["round_id"], "values": values}
        asked = headers | {"Accept": "application/json"}
        with own_database.session() as session:
            session.execute(text("SELECT FROM searches FOR UPDATE"))
            reply = web.post(f"{here}/answers", json=body, headers=asked)
        assert reply.status_code == 503
        assert reply.json()["title"] == "This took too long"
        assert reply.headers["Retry-After"]
        assert web.post(f"{here}/answers", json=body, headers=asked).status_code == 200


def test_only_requests_have_an_end_in_the_database(settings, own_database_url):
    hasty = settings.model_copy(
        update={"database_url": own_database_url, "longest_statement_s": 0.2}
    )
    database = connect_database(hasty)
    try:
        with (
            pytest.raises(OperationalError, match="statement timeout"),
            database.begin() as session,
        ):
            session.execute(text("SELECT pg_sleep(5)"))
        with database.session() as session:  # long work takes its time
            session.execute(text("SELECT pg_sleep(0.5)"))
    finally:
        database.close()


def test_connections_that_postgresql_does_not_take_are_refused_at_the_start(
    settings, own_database_url
):
    many = settings.model_copy(
        update={"database_url": own_database_url, "connections": 5_000, "processes": 64}
    )
    database = connect_database(many)
    try:
        with pytest.raises(DatabaseNotUsable, match=r"may need 5\d\d connections .* which takes"):
            check_connections(database, many)
        check_connections(database, many.model_copy(update={"processes": 2}))
    finally:
        database.close()


def test_processes_share_the_connections():
    settings = Settings(database_url=None, connections=30, processes=4)
    assert count_places(settings) * settings.processes <= 30
    assert count_places(settings.model_copy(update={"processes": 64})) >= 3
    # More threads of one process than it can do the work of only wait for each other.
    assert count_places(settings.model_copy(update={"processes": 1})) == MOST_AT_ONCE
