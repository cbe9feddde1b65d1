"""How many requests are worked on at once, who waits, and who is asked to come again.

Each request that is worked on has a thread and a connection to PostgreSQL. There are only so many:
beyond them requests wait in line, one line for each person, and the lines take turns; so nobody
waits long because somebody else asks for very much. What takes long (dashboards, exports, forms
with photos) has a place of its own, and so has what never does (pictures, answers, signing in): it
goes on while others open large collections, or look through them. Among those who wait for the same
places, what people wait for goes before pictures, and these before answers and whatever else a page
sends by itself. What changes one search comes one by one: it would only wait for the search's lock,
at a place that others can use. Where too many wait, or one has waited too long, the answer is at
once a page that says so: whoever sent answers sends them again by itself
(static/answers.js, static/grid.js), and none is lost.
"""

import asyncio
import math
import re
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ServerBusy

LONGEST_WAIT_S = 10.0  # pages give up after 15
RETRY_S = 3  # when it is worth asking again
SMALL_BYTES = 1_000_000  # of a form or of JSON: read before a place is taken
SEARCH = re.compile(r"(?:/api/v1)?(/searches/\d+)/")
# What can wait a little; for all else people wait.
PICTURES, PICTURES_S = re.compile(r"/(images|photos)/\d+/(small|large)$"), 0.3
BY_ITSELF_S = 2.0
BY_ITSELF = re.compile(r"/searches/\d+/(answers|upcoming|here|leave)$")
CALM_SHARE = 1 / 3  # of the last seconds, in which a process was at work
CALM_S = 3.0  # these seconds: how long it takes until two thirds of what was are forgotten
COSTLY_PLACES = 1  # for what takes long
LIGHT_SHARE = 2  # one of so many of the other places is for what never does
LIGHT = re.compile(
    rf"{PICTURES.pattern}|(/api/v1)?/searches/\d+/(answers|here|leave)$|/sign-(in|out)$"
)
# Nothing of these asks the database, or each asks it by itself for moments only.
UNCOUNTED = re.compile(r"/static/|/api/v1/(health|ready)$|/uploads/\d+/files")
COSTLY = re.compile(
    r"/searches/\d+/(dashboard|report|exports?\b|detour)|/exports|/collections/\d+/replays"
    r"|/collections/\d+/searches/import|/replays|/overview|/api/v1/(exports|searches/\d+/export)"
)


@dataclass(frozen=True)
class Call:
    """A request as the lines know it: who asks, how long it can wait, what it alone may change."""

    who: str
    patience_s: float = 0.0
    changes: str | None = None


@dataclass(eq=False)
class Waiting:
    """A call in line, and the moment by which it should be let in once it is the first there."""

    call: Call
    turn: asyncio.Future[None]
    by: float = math.inf


class Lane:
    """Places to work at, and the lines of those who wait for one.

    A line is what one person asks for with the same patience. Of those that are first in a line the
    one goes first whose patience ends first, counted from when it came to be the first.
    """

    def __init__(self, places: int, most_waiting: int) -> None:
        self._free = places
        self._most_of_one = max(1, places // 2)
        self._most_waiting = most_waiting
        self._places = places
        self._at_work: Counter[str] = Counter()
        self._changing: set[str | None] = set()
        self._lines: dict[tuple[str, float], deque[Waiting]] = {}
        self._share, self._looked_at = 0.0, time.monotonic()
        self.waiting = 0

    @property
    def is_calm(self) -> bool:
        """Whether there is time for what is only a head start: nobody else is at work or waits,
        and for most of the last seconds nobody was."""
        self._look()
        return self._places - self._free <= 1 and not self.waiting and self._share < CALM_SHARE

    async def enter(self, call: Call) -> None:
        """Take a place, or wait for one in its turn. Raises ServerBusy."""
        name = call.who, call.patience_s
        if self._free and name not in self._lines and self._may_work(call):
            self._take(call)
            return
        own = sum(len(line) for (who, _), line in self._lines.items() if who == call.who)
        if self.waiting >= self._most_waiting or own >= self._most_waiting // 4:
            raise ServerBusy(RETRY_S)
        waiting = Waiting(call, asyncio.get_running_loop().create_future())
        self._lines.setdefault(name, deque()).append(waiting)
        self._begin_to_count(name)
        self.waiting += 1
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await waiting.turn
        except BaseException as error:
            if waiting.turn.done() and not waiting.turn.cancelled():
                self.leave(call)  # it had just been given the place
            else:
                self._lines[name].remove(waiting)
                self._begin_to_count(name)
                self.waiting -= 1
                self._let_in()  # whom it stood before
            if isinstance(error, TimeoutError):
                raise ServerBusy(RETRY_S) from None
            raise

    def leave(self, call: Call) -> None:
        """Give the place back, and to whoever's turn it is."""
        self._look()
        self._free += 1
        self._changing.discard(call.changes)
        self._at_work[call.who] -= 1
        if not self._at_work[call.who]:
            del self._at_work[call.who]
        self._let_in()

    def _let_in(self) -> None:
        while self._free:
            first = (line[0] for line in self._lines.values())
            # Who went away a moment ago has not left the line yet.
            able = (one for one in first if not one.turn.done() and self._may_work(one.call))
            chosen = min(able, key=lambda waiting: waiting.by, default=None)
            if chosen is None:
                return
            name = chosen.call.who, chosen.call.patience_s
            self._lines[name].popleft()
            self._begin_to_count(name)
            self.waiting -= 1
            self._take(chosen.call)
            chosen.turn.set_result(None)

    def _begin_to_count(self, name: tuple[str, float]) -> None:
        """Whoever is first in a line by now becomes impatient; a line of nobody is none."""
        line = self._lines[name]
        if not line:
            del self._lines[name]
        elif line[0].by == math.inf:
            line[0].by = time.monotonic() + line[0].call.patience_s

    def _may_work(self, call: Call) -> bool:
        is_free = call.changes is None or call.changes not in self._changing
        return is_free and self._at_work[call.who] < self._most_of_one

    def _look(self) -> None:
        """Note whether anybody was at work since the last time."""
        now = time.monotonic()
        kept = math.exp((self._looked_at - now) / CALM_S)
        self._share = kept * self._share + (1 - kept) * (self._free < self._places)
        self._looked_at = now

    def _take(self, call: Call) -> None:
        self._look()
        self._free -= 1
        self._at_work[call.who] += 1
        if call.changes is not None:
            self._changing.add(call.changes)


class Admitting:
    """Lets requests through as there are places; the place is free again when the answer begins."""

    def __init__(self, app: ASGIApp, *, places: int, most_waiting: int) -> None:
        self._app = app
        places -= COSTLY_PLACES
        light = max(1, places // LIGHT_SHARE)
        self._light = Lane(light, most_waiting)
        self._middle = Lane(max(1, places - light), most_waiting)
        self._costly = Lane(COSTLY_PLACES, most_waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on in its turn."""
        if scope["type"] != "http" or UNCOUNTED.match(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        lane = self._middle
        if is_costly(scope, headers):
            lane = self._costly
        elif LIGHT.match(scope["path"]):
            lane = self._light
        if lane is not self._costly:
            receive = await read_whole(receive)  # else who sends slowly would hold a place
        call = read_call(scope, headers)
        await lane.enter(call)
        scope.setdefault("state", {})["is_calm"] = self._middle.is_calm and self._light.is_calm
        is_in = True

        def go() -> None:
            nonlocal is_in
            if is_in:
                is_in = False
                lane.leave(call)

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                go()  # what was to be saved is saved
            await send(message)

        try:
            await self._app(scope, receive, send_on)
        finally:
            go()


def is_costly(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request takes seconds, or brings more than answers."""
    if COSTLY.match(scope["path"]):
        return True
    is_large = int(headers.get(b"content-length", b"0")) > SMALL_BYTES
    return is_large or headers.get(b"content-type", b"").startswith(b"multipart/")


async def read_whole(receive: Receive) -> Receive:
    """The same request with its body here already."""
    messages: deque[Message] = deque()
    while True:
        message = await receive()
        messages.append(message)
        if message["type"] != "http.request" or not message.get("more_body", False):
            break

    async def receive_again() -> Message:
        return messages.popleft() if messages else await receive()

    return receive_again


def read_call(scope: Scope, headers: Mapping[bytes, bytes]) -> Call:
    """How a request waits."""
    path = scope["path"]
    is_by_itself = BY_ITSELF.match(path)
    patience_s = BY_ITSELF_S if is_by_itself else PICTURES_S if PICTURES.match(path) else 0.0
    of_search = SEARCH.match(path) if scope["method"] == "POST" else None
    return Call(name_asker(scope, headers), patience_s, of_search and of_search[1])


def name_asker(scope: Scope, headers: Mapping[bytes, bytes]) -> str:
    """Who asks, without asking the database: by token, cookie, or address."""
    known = headers.get(b"authorization") or headers.get(b"cookie")
    if known is not None:
        return known.decode("latin-1")
    return scope["client"][0] if scope.get("client") else ""
