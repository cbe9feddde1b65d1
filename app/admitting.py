"""How many requests are worked on at once, who waits, and who is asked to come again.

Each request that is worked on has a thread and a connection to PostgreSQL. There are only so many:
beyond them requests wait in line, one line for each person, and the lines take turns; so nobody
waits long because somebody else asks for very much. A submit, for which somebody sits and waits,
goes before pictures and answers. What takes long (dashboards, exports, forms with photos) has few
places of its own and never takes those of answers and grids. Where too many wait, or one has waited
too long, the answer is at once a page that says so: whoever sent answers sends them again by itself
(static/answers.js, static/grid.js), and none is lost.
"""

import asyncio
import re
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import ServerBusy

LONGEST_WAIT_S = 10.0  # pages give up after 15
RETRY_S = 3  # when it is worth asking again
SMALL_BYTES = 1_000_000  # of a form or of JSON: read before a place is taken
AHEAD = re.compile(r"/searches/\d+/submit$")
CALM = 1  # requests that are worked on at once in a process, the one that asks included
COSTLY_SHARE = 4  # one of so many places is for what takes long
# Nothing of these asks the database, or each asks it by itself for moments only.
UNCOUNTED = re.compile(r"/static/|/api/v1/(health|ready)$|/uploads/\d+/files")
COSTLY = re.compile(
    r"/searches/\d+/(dashboard|report|exports?\b|detour)|/exports|/collections/\d+/replays"
    r"|/collections/\d+/searches/import|/replays|/overview|/api/v1/(exports|searches/\d+/export)"
)


Lines = OrderedDict[str, deque[asyncio.Future[None]]]


class Lane:
    """Places to work at, and the lines of those who wait for one."""

    def __init__(self, places: int, most_waiting: int) -> None:
        self._free = places
        self._most_of_one = max(1, places // 2)
        self._most_waiting = most_waiting
        self._places = places
        self._at_work: dict[str, int] = {}
        self._ahead: Lines = OrderedDict()  # who is let in before all others
        self._behind: Lines = OrderedDict()
        self.waiting = 0

    @property
    def busy(self) -> int:
        """Places that are taken."""
        return self._places - self._free

    async def enter(self, who: str, *, ahead: bool = False) -> None:
        """Take a place, or wait for one, `ahead` of who is not. Raises ServerBusy."""
        waits = who in self._ahead or (who in self._behind and not ahead)
        if self._free and not waits and self._may_work(who):
            self._take(who)
            return
        lines = self._ahead if ahead else self._behind
        line = lines.get(who)
        if self.waiting >= self._most_waiting or len(line or ()) >= self._most_waiting // 4:
            raise ServerBusy(RETRY_S)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lines.setdefault(who, deque()).append(turn)
        self.waiting += 1
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(who)  # it had just been given the place
            else:
                lines[who].remove(turn)
                self._drop_empty(lines, who)
                self.waiting -= 1
            if isinstance(error, TimeoutError):
                raise ServerBusy(RETRY_S) from None
            raise

    def leave(self, who: str) -> None:
        """Give the place back, and to whoever's turn it is."""
        self._free += 1
        left = self._at_work[who] - 1
        if left:
            self._at_work[who] = left
        else:
            del self._at_work[who]
        for lines, one in self._next():
            lines.move_to_end(one)
            turn = lines[one].popleft()
            self._drop_empty(lines, one)
            self.waiting -= 1
            self._take(one)
            turn.set_result(None)

    def _next(self) -> Iterator[tuple[Lines, str]]:
        """Who may begin now, line by line."""
        while self._free:
            waiting = ((lines, one) for lines in (self._ahead, self._behind) for one in lines)
            found = next((place for place in waiting if self._may_work(place[1])), None)
            if found is None:
                return
            yield found

    def _may_work(self, who: str) -> bool:
        return self._at_work.get(who, 0) < self._most_of_one

    def _take(self, who: str) -> None:
        self._free -= 1
        self._at_work[who] = self._at_work.get(who, 0) + 1

    def _drop_empty(self, lines: Lines, who: str) -> None:
        if not lines[who]:
            del lines[who]


class Admitting:
    """Lets requests through as there are places; the place is free again when the answer begins."""

    def __init__(self, app: ASGIApp, *, places: int, most_waiting: int) -> None:
        self._app = app
        costly = max(1, places // COSTLY_SHARE)
        self._quick = Lane(max(1, places - costly), most_waiting)
        self._costly = Lane(costly, most_waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on in its turn."""
        if scope["type"] != "http" or UNCOUNTED.match(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        lane = self._costly if is_costly(scope, headers) else self._quick
        if lane is self._quick:
            receive = await read_whole(receive)  # else who sends slowly would hold a place
        who = name_asker(scope, headers)
        await lane.enter(who, ahead=AHEAD.search(scope["path"]) is not None)
        # For what is only a head start: with so few others it takes nothing from anybody.
        scope.setdefault("state", {})["is_calm"] = self._quick.busy <= CALM and not lane.waiting
        is_in = True

        def go() -> None:
            nonlocal is_in
            if is_in:
                is_in = False
                lane.leave(who)

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


def name_asker(scope: Scope, headers: Mapping[bytes, bytes]) -> str:
    """Who asks, without asking the database: by token, cookie, or address."""
    known = headers.get(b"authorization") or headers.get(b"cookie")
    if known is not None:
        return known.decode("latin-1")
    return scope["client"][0] if scope.get("client") else ""
