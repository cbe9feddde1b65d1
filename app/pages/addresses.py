"""What stands in a page's address: numbers of things, and where a form leads afterwards."""

import re
from typing import Annotated

from fastapi import Path, Query, Request
from fastapi.responses import RedirectResponse

LARGEST_ID = 2**63 - 1  # of PostgreSQL's bigint

LOCAL = re.compile(r"/(?![/\\])[^\\#]*")

Id = Annotated[int, Path(ge=1, le=LARGEST_ID)]
OptionalId = Annotated[int | None, Query(ge=1, le=LARGEST_ID)]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000_000)]
Count = Annotated[int, Query(ge=0, le=1_000_000_000)]


def here(request: Request) -> str:
    """This page, for a form that leads back to it."""
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def own_path(path: str, start: str, otherwise: str) -> str:
    """`path` if it begins with `start`, so that no form leads to another site."""
    return path if path.startswith(start) and path.isprintable() and "#" not in path else otherwise


def local_path(path: str) -> str:
    """`path` if it leads to a page of ours: two slashes would lead to another site."""
    return path if LOCAL.fullmatch(path) and path.isprintable() else "/"


def see_other(path: str) -> RedirectResponse:
    """Go on with a GET, so that loading the page again does not send the form again."""
    return RedirectResponse(path, status_code=303)
