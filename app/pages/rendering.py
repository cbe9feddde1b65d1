"""Turns a template and its context into a response; the filters that templates may use."""

import hashlib
import re
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from starlette.templating import Jinja2Templates

from app.errors import BadInput, NotSignedIn, RarefindError, SignInLinkSpent
from app.logs import REQUEST_ID
from app.pages.addresses import here

THIN_SPACE = "\u202f"  # narrow and unbreakable, between thousands
GIVEN_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}")
MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400


def make_templates(project: Path) -> Jinja2Templates:
    """The templates of the `project` folder, with their filters and `static(path)`."""

    @cache
    def static(path: str) -> str:
        """The URL of a file under static/; it changes with the content, so it may be kept."""
        content = (project / "static" / path).read_bytes()
        return f"/static/{path}?v={hashlib.sha256(content).hexdigest()[:12]}"

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(project / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["static"] = static
    environment.filters.update(
        number=number,
        plural=plural,
        in_percent=in_percent,
        when=when,
        day=day,
        days=days,
        read_day=read_day,
        moment=moment,
        duration=duration,
        rate=rate,
        file_size=file_size,
        file_name=file_name,
        shown_path=shown_path,
        file_ending=file_ending,
        given=given,
        browser_name=browser_name,
    )
    return Jinja2Templates(env=environment)


def render(
    request: Request,
    name: str,
    /,
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """The page or fragment `name`; `person` is in every context, None when nobody is signed in."""
    templates: Jinja2Templates = request.app.state.templates
    return templates.TemplateResponse(
        request, name, {"person": None, **context}, status_code=status, headers=headers
    )


def render_error(request: Request, error: RarefindError) -> HTMLResponse:
    """What happened, what is safe and what to do, as a page or as a fragment of one."""
    asker = getattr(request.state, "asker", None)
    return render(
        request,
        "_error.html" if wants_fragment(request) else "error.html",
        status=error.status,
        person=asker,
        title=error.title,
        sentence=str(error),
        signed_out=asker is None and isinstance(error, NotSignedIn | SignInLinkSpent),
        bad_input=isinstance(error, BadInput),
        # Of what people can act on themselves nobody needs to be told.
        request_id=REQUEST_ID.get() if error.status >= 500 else None,
        back=find_page_before(request),
        then=here(request) if request.method == "GET" and isinstance(error, NotSignedIn) else "/",
    )


def find_page_before(request: Request) -> str | None:
    """The page of ours that led here, as a path: never an address outside."""
    before = urlsplit(request.headers.get("referer", ""))
    if before.netloc != request.url.netloc or before.path in ("", "/", request.url.path):
        return None
    # A second slash would make the browser read a host name.
    return f"/{before.path.lstrip('/')}" + (f"?{before.query}" if before.query else "")


def wants_fragment(request: Request) -> bool:
    """Whether htmx asks, and so only a part of the page is needed."""
    return request.headers.get("HX-Request") == "true"


def number(value: float) -> str:
    """8725 -> 8 725, with thin spaces."""
    return f"{value:,.0f}".replace(",", THIN_SPACE)


def plural(count: int, one: str, many: str | None = None) -> str:
    """1 -> "1 image", 8725 -> "8 725 images"."""
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def in_percent(share: float) -> str:
    """0.19 -> "19", 0.022 -> "2.2", 0 -> "0", to be followed by a percent sign."""
    return f"{100 * share:.1f}".removesuffix(".0") if share < 0.0995 else f"{100 * share:.0f}"


def when(at: datetime) -> Markup:
    """How long ago, with the full time one hover away."""
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="seconds"), moment(at), _ago(at, datetime.now(UTC))
    )


def day(at: date) -> str:
    """4 March 2026."""
    return f"{at.day} {at:%B %Y}"


def days(first: date, last: date) -> str:
    """4 March 2026 to 16 May 2026, or the one day that it all was."""
    return day(first) if day(first) == day(last) else f"{day(first)} to {day(last)}"


def read_day(text: str) -> date:
    """The day of a date in a brought table, with a time of day or without."""
    return date.fromisoformat(text[:10])


def moment(at: datetime) -> str:
    """4 March 2026, 14:05, in the server's time zone unless `at` has none (camera time)."""
    local = at.astimezone() if at.tzinfo else at
    return f"{day(local)}, {local:%H:%M}"


def duration(seconds: float) -> str:
    """A length of time, as exact as people need it: "40 s", "3 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * MINUTE_S:
        return f"{round(seconds / MINUTE_S)} min"
    hours, minutes = divmod(round(seconds / MINUTE_S), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def rate(per_second: float) -> str:
    """A speed: small ones with a decimal."""
    return number(per_second) if per_second >= 10 else f"{per_second:.1f}"


def file_size(size_bytes: int) -> str:
    """Decimal units, as file managers show them."""
    if size_bytes < 1000:
        return f"{size_bytes} bytes"
    size, unit = size_bytes / 1e3, "kB"
    for larger in ("MB", "GB"):
        if size < 999.5:
            break
        size, unit = size / 1e3, larger
    return f"{size:.1f} {unit}" if size < 9.95 else f"{size:.0f} {unit}"


def file_name(path: str) -> str:
    """The last part of a path."""
    return path.rsplit("/", 1)[-1]


def shown_path(path: str, with_folders: bool) -> str:
    """What tells an image apart: its path, or its name alone where folders may tell the answer."""
    return path if with_folders else file_name(path)


def file_ending(name: str) -> str:
    """What kind of file it is, as people call it: ZIP, CSV."""
    ending = name.rsplit(".", 1)[-1]
    return {"jsonl": "JSON Lines", "rarefind": ".rarefind"}.get(ending, ending.upper())


def given(value: float | str) -> str:
    """A cell of a brought table: dates with a blank between day and time."""
    text = f"{value}"
    return text.replace("T", " ", 1) if GIVEN_TIME.match(text) else text


def browser_name(user_agent: str) -> str:
    """Firefox on Linux: what people call a browser that calls itself by half a line."""
    browsers = {"Edg/": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "Chrome/": "Chrome"}
    systems = {"Android": "Android", "iPhone": "iPhone", "iPad": "iPad", "Windows": "Windows"}
    browsers |= {"Safari/": "Safari"}
    systems |= {"Mac OS": "Mac", "CrOS": "ChromeOS", "Linux": "Linux"}
    browser = next((name for sign, name in browsers.items() if sign in user_agent), "A browser")
    system = next((name for sign, name in systems.items() if sign in user_agent), "")
    return f"{browser} on {system}" if system else browser


def _ago(at: datetime, now: datetime) -> str:
    seconds = (now - at).total_seconds()
    if seconds < MINUTE_S:
        return "just now"
    if seconds < HOUR_S:
        return f"{int(seconds // MINUTE_S)} min ago"
    if seconds < DAY_S:
        return f"{int(seconds // HOUR_S)} h ago"
    days = (now.astimezone().date() - at.astimezone().date()).days
    if days <= 1:
        return "yesterday"
    if days < 7:
        return f"{days} days ago"
    local = at.astimezone()
    return f"{local.day} {local:%b}" + (f" {local.year}" if local.year != now.year else "")
