"""Every address under values that no page of ours sends, as every role.

Bytes that are no text, numbers beyond any, fields that are missing, doubled or another's: nothing
is answered with a fault, nothing leads to another site, nobody is told what is not theirs.
`make hostile` runs it longer (RAREFIND_HOSTILE_REQUESTS); RAREFIND_HOSTILE_SEED repeats a run.
"""

import os
import random
import secrets
from collections import Counter
from urllib.parse import quote

import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy import text
from starlette.testclient import TestClient

from app.security import issue_sign_in_link
from app.tables import Person
from tests.conftest import open_web
from tests.planting import ASKING, CALM, plant

pytestmark = pytest.mark.slow

REQUESTS = int(os.environ.get("RAREFIND_HOSTILE_REQUESTS", "0"))
SEED = int(os.environ.get("RAREFIND_HOSTILE_SEED", secrets.randbits(31) if REQUESTS else 3))
HOSTILE = [
    b"",
    b"\x00",
    b"a\x00b",
    b"\xff\xfe\x80",
    b"\xed\xa0\x80",  # half of a surrogate pair
    "\u202e\U0001f98a\u0301".encode(),
    "٣".encode(),
    b"-1",
    b"0",
    b"1.5",
    b"1e309",
    b"nan",
    b"inf",
    b"2147483648",
    b"9223372036854775807",
    b"9223372036854775808",
    b"9" * 5_000,
    b"x" * 100_000,
    b"../../../../etc/passwd",
    b"..\\..\\x",
    b"/etc/passwd",
    b"//elsewhere.example/x",
    b"https://elsewhere.example",
    b"javascript:alert(1)",
    b"<script>alert(1)</script>",
    b"' OR 1=1 --",
    b"%s%n{0}{{7*7}}${x}",
    b"a\r\nSet-Cookie: a=b",
    b"=cmd|'/c calc'!A1",
    b"2026-13-45",
    b"0001-01-01",
    b"9999-12-31",
    b"null",
    b'{"values": {"1": {}}, "round_id": []}',
]
USUAL = [
    b"1",
    b"2",
    b"12",
    b"yes",
    b"no",
    b"on",
    b"csv",
    b"sample",
    b"random",
    b"pf-ma",
    b"all",
    b"2025-05-01",
    b"5",
    b"0.1",
    b"47.5",
    b"hand-made",
    b"heron",
    b"site",
    b"A",
    b"bursts",
]
# Read by pages themselves, so that no route names them.
MORE_FIELDS = [
    "round_id",
    "values",
    "gesture_key",
    "change",
    "set",
    "picked",
    "alone",
    "from",
    "month",
    "south",
    "north",
    "west",
    "east",
    "deployment",
    "given",
    "visit",
    "text",
    "is.site",
    "min.site",
    "hour_from",
    "round",
    "whole",
    "page",
    "show",
    "then",
]
# A pool of everybody's ids would open Bob's things to others, and then nothing could leak.
DONE_BY_HAND = {"/people/{person_id}/role"}
ALIKE = {
    "with_image_id": "image_id",
    "thing_id": "collection_id",
    "login_id": "search_id",
    "job_id": "export_id",
    "person_id": "search_id",
}


def list_fields(dependant):
    if dependant is None:  # a route that reads the request by itself
        return []
    fields = [one.alias for one in (*dependant.query_params, *dependant.body_params)]
    return fields + [name for one in dependant.dependencies for name in list_fields(one)]


class Draw:
    """Addresses, fields and bodies drawn by one seed."""

    def __init__(self, seed, ids):
        self.random = random.Random(seed)
        self.ids = ids

    def number(self, kind):
        kind = ALIKE.get(kind, kind)
        whose = self.random.choice(["all", "all", "ada", "bob"])
        return str(self.random.choice(self.ids[whose][kind])).encode()

    def value(self, name):
        pick = self.random.random()
        if pick < 0.5 or name.endswith(("_id", "_ids")):
            kind = "image_id" if name == "image_ids" else name
            if pick < 0.35 and kind.endswith("_id") and kind in self.ids["all"]:
                return self.number(kind)
            return self.random.choice(USUAL)
        return self.random.choice(HOSTILE)

    def path(self, path):
        parts = []
        for part in path.split("/"):
            before, _, rest = part.partition("{")
            name, _, after = rest.partition("}")
            if not rest:
                parts.append(part)
            elif name.endswith("_id") and self.random.random() < 0.85:
                parts.append(before + self.number(name).decode() + after)
            else:
                value = self.random.choice(HOSTILE + USUAL)
                parts.append(before + quote(value[:2_000], safe="") + after)
        return "/".join(parts)

    def fields(self, names):
        pairs = []
        for name in names:
            count = self.random.choice([0, 1, 1, 1, 1, 2])
            pairs += [(name, self.value(name)) for _ in range(count)]
        for kind in ("answer-", "was-", "alone-"):
            if self.random.random() < 0.2:
                pairs.append((kind + self.number("image_id").decode(), self.value("answer")))
        return "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)

    def body(self, names):
        """A form mostly; else what is none, or says that it is another thing than it is."""
        pick = self.random.random()
        if pick < 0.7:
            return "application/x-www-form-urlencoded", self.fields(names).encode()
        if pick < 0.8:
            parts = [
                b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
                % (
                    name.encode(),
                    self.random.choice([b"", b'; filename="../\xffa.jpg"']),
                    self.value(name),
                )
                for name in names
            ]
            return "multipart/form-data; boundary=x", b"".join(parts) + b"--x--\r\n"
        return self.random.choice(
            [
                ("application/json", b'{"a":' * 50_000),
                ("application/json", b"[" * 100_000 + b"]" * 100_000),
                ("application/json", self.random.choice(HOSTILE)),
                (
                    "application/json",
                    b'{"values":{"%s":"yes"},"round_id":%s}'
                    % (self.number("image_id"), self.number("round_id")),
                ),
                ("application/json", b'{"values":{"1":1e400},"round_id":1e400,"alone":[[]]}'),
                ("multipart/form-data", b"--x"),
                ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: \xff\r\n\r\n"),
                ("application/x-www-form-urlencoded; charset=utf-16", b"\xff\xfea\x00=\x00"),
                ("application/offset+octet-stream", b"abc"),
                ("text/plain", self.random.choice(HOSTILE)),
            ]
        )

    def headers(self):
        odd = {
            "HX-Request": "true",
            "Range": "bytes=9-1,-5",
            "Accept": "application/json",
            "Referer": "http://127.0.0.1:8321//elsewhere.example/\\",
            "If-None-Match": '"' * 99,
            "Upload-Length": "9" * 40,
            "Upload-Offset": "-1",
            "Upload-Metadata": "path Li4vLi4veA==,modified !",
        }
        picked = {name: given for name, given in odd.items() if self.random.random() < 0.15}
        return picked | {"Tus-Resumable": self.random.choice(["1.0.0", "2"])}


def let_in(planted, client, name):
    """Undo what took somebody's account or things away, and sign them in again."""
    with planted.web.app.state.database.session() as session:
        session.execute(text("UPDATE people SET closed_at = NULL"))
        back = "SET deleted_at = NULL, deleted_by_id = NULL, archived_at = NULL"
        for table in ("collections", "searches"):
            session.execute(text(f"UPDATE {table} {back}"))
        person = session.get_one(Person, planted.people[name])
        settings = planted.web.app.state.settings
        link = issue_sign_in_link(session, person, base_url="", settings=settings)
    assert client.get(link).status_code == 200


def find_fault(planted, name, asked, answer):
    """What is wrong with an answer, whatever the request was."""
    if answer.status_code >= 500 and answer.status_code != 507:
        return f"{answer.status_code}"
    if "default-src 'self'" not in answer.headers.get("content-security-policy", ""):
        return "no policy"
    leads = answer.headers.get("location", "/")
    if not leads.startswith("/") or leads[1:2] in ("/", "\\") or not leads.isprintable():
        return f"leads to {leads}"
    for cookie in answer.headers.get_list("set-cookie"):
        if "httponly" not in cookie.lower() or "samesite=lax" not in cookie.lower():
            return f"cookie {cookie}"
    if leak := planted.find_leak(name, asked, answer.text):
        return f"tells {leak}"
    return None


# Starlette leaves what a broken form began with to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*SpooledTemporaryFile:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.timeout(14_400 if REQUESTS else 180)
def test_no_request_finds_a_fault_or_what_is_not_ones_own(settings, own_database_url):
    calm = settings.model_copy(update=CALM)
    with open_web(calm, own_database_url) as web:
        planted = plant(web)
        clients = {
            name: TestClient(web.app, base_url=str(web.base_url), raise_server_exceptions=False)
            for name in ASKING
        }
        draw = Draw(SEED, planted.ids)
        routes = [
            (
                method,
                route.path,
                list_fields(
                    getattr(route, "dependant", None) or getattr(route.route, "dependant", None)
                ),
            )
            for route in iter_route_contexts(web.app.routes)
            if route.path not in ("/static", "/api/v1/openapi.json", *DONE_BY_HAND)
            for method in route.methods
        ]
        wrong: dict[tuple[str, str], str] = {}
        statuses: Counter[tuple[str | None, int]] = Counter()
        turns = max(1, REQUESTS // (len(routes) * len(ASKING)))
        for _ in range(turns):
            for name in ASKING[1:]:
                let_in(planted, clients[name], name)
            for method, path, names in routes:
                for name in ASKING:
                    more = draw.random.sample(MORE_FIELDS, 3)
                    url = draw.path(path)
                    body = {}
                    if method in ("GET", "HEAD"):
                        url += "?" + draw.fields(names + more)[:20_000]
                        headers = {}
                    else:
                        kind, content = draw.body(names + more)
                        body, headers = {"content": content}, {"Content-Type": kind}
                    answer = clients[name].request(
                        method,
                        url,
                        **body,
                        headers=headers | draw.headers(),
                        follow_redirects=False,
                    )
                    statuses[name, answer.status_code] += 1
                    if name and answer.status_code == 401:
                        let_in(planted, clients[name], name)
                    asked = f"{method} {url} {body.get('content', b'')!r}"
                    if fault := find_fault(planted, name, asked, answer):
                        wrong.setdefault((f"{method} {path}", fault), f"{name}: {asked[:600]}")
    print(f"seed {SEED}: {sum(statuses.values())} requests", dict(statuses))  # noqa: T201
    assert not wrong, "\n\n".join(f"{key}\n{what}" for key, what in wrong.items())
    for name in ASKING[1:]:
        assert statuses[name, 200] > turns * 5, statuses
