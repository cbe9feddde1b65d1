"""How much one person, or one address, may ask for in a minute.

Far above what hands can do: a person who answers twelve images in six seconds sends some 150
requests a minute. It stops a program that has run wild, or somebody who means harm, before others
notice. Wrong passwords have limits of their own (app/accounts.py). Counts stand in memory: each
process of a server counts what it is asked, up to its share of the limits. So all of them together
never let more through; and who is always served by one process has that share, which is why the
limits are wide.
"""

import math
import time
from threading import Timer

from fastapi import Request
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import TooManyRequests
from app.settings import Settings

FORGET_S = 1.0
MOST_HEAD_BYTES = 65_536  # of a request's first line and headers: a browser sends some 2,000
WRONG_TOKENS_A_MINUTE = 300  # that are nobody's, from one address
# A piece of an upload is a small photo or 8 MB of a large one; its quota counts the bytes.
PIECES_A_MINUTE = 12_000
PIECES = {
    "POST /uploads/{upload_id}/files",
    "PATCH /uploads/{upload_id}/files/{file_id}",
    "HEAD /uploads/{upload_id}/files/{file_id}",
}
# What takes seconds of the processor, or makes files or jobs.
COSTLY = {
    "POST /collections",
    "POST /collections/{collection_id}/imports",
    "POST /collections/{collection_id}/indexes",
    "POST /collections/{collection_id}/indexes/combined",
    "POST /collections/{collection_id}/events",
    "POST /collections/{collection_id}/metadata",
    "POST /collections/{collection_id}/replays",
    "POST /collections/{collection_id}/searches",
    "POST /collections/{collection_id}/searches/import",
    "POST /collections/{collection_id}/uploads",
    "POST /exports",
    "POST /searches/{search_id}/exports",
    "GET /searches/{search_id}/export.{file_format}",
    "GET /searches/{search_id}/exports/{name}",
    "GET /searches/{search_id}/report",
    "POST /people",
    "POST /people/{person_id}/reset",
    "POST /account/tokens",
    "POST /api/v1/collections/{collection_id}/searches",
    "POST /api/v1/exports",
    "GET /api/v1/searches/{search_id}/export",
}


class BoundedHead(HttpToolsProtocol):
    """A connection whose requests have heads of an end.

    They are read before anything is known of who sends them, and the parser keeps all of it.
    """

    _head_bytes = 0
    _is_in_head = True

    def data_received(self, data: bytes) -> None:
        """Read on, unless a head does not end."""
        self._head_bytes += len(data)
        super().data_received(data)
        is_too_long = self._is_in_head and self._head_bytes > MOST_HEAD_BYTES
        if is_too_long and not self.transport.is_closing():  # else it was refused already
            self.send_400_response("The headers of this request are too long.")

    def on_headers_complete(self) -> None:
        """The head has come."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request has come; the next one begins with a head."""
        self._is_in_head, self._head_bytes = True, 0
        super().on_message_complete()


class SlowlyForgetting(MemoryStorage):
    """Forgets what is past once a second: its own way is to start a thread at each request."""

    @property
    def timer(self) -> Timer:
        """Counts down to the next time."""
        return self._timer

    @timer.setter
    def timer(self, wanted: Timer) -> None:
        self._timer = Timer(FORGET_S, wanted.function)
        self._timer.daemon = True


class Limits:
    """Counts what was asked in the last minute."""

    def __init__(self, settings: Settings) -> None:
        self._limiter = MovingWindowRateLimiter(SlowlyForgetting())
        among = settings.processes
        self._changes = _a_minute(settings.changes_a_minute, among)
        self._costly = _a_minute(settings.costly_a_minute, among)
        self._pieces = _a_minute(PIECES_A_MINUTE, among)
        self._wrong_tokens = _a_minute(WRONG_TOKENS_A_MINUTE, among)

    def count(self, request: Request, person_id: int) -> None:
        """Count a person's request; refuse it when it is too many."""
        route = f"{request.method} {getattr(request.scope.get('route'), 'path', '')}"
        if route in PIECES:
            self._hit(self._pieces, "pieces", f"{person_id}")
            return
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            self._hit(self._changes, "changes", f"{person_id}")
        if route in COSTLY:
            self._hit(self._costly, "costly", f"{person_id}")

    def count_wrong_token(self, address: str) -> None:
        """Count a token that is nobody's."""
        self._hit(self._wrong_tokens, "tokens", address)

    def _hit(self, most: RateLimitItem | None, kind: str, who: str) -> None:
        if most is None or self._limiter.hit(most, kind, who):
            return
        free_at = self._limiter.get_window_stats(most, kind, who).reset_time
        raise TooManyRequests(max(1, math.ceil(free_at - time.time())))


def _a_minute(most: int, among: int) -> RateLimitItem | None:
    return RateLimitItemPerMinute(max(1, most // among)) if most else None
