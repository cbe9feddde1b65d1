"""Who is asking, and what their role lets them do: links, login sessions, tokens, same origin.

Tokens are 256 random bits; the database keeps only their SHA-256, so a stolen copy of it signs
nobody in.
"""

import getpass
import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from sqlalchemy import ColumnElement, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from app.database import DbSession
from app.errors import (
    BadInput,
    CrossSiteRequest,
    NameTaken,
    NotAllowed,
    NotFound,
    NotSignedIn,
    SignInLinkSpent,
)
from app.limiting import Limits
from app.settings import Settings, is_loopback
from app.tables import TOKEN_SCOPES, ApiToken, LoginSession, Person, SignInLink

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
MAX_TOKEN_NAME_LENGTH = 80
MAX_PERSON_NAME_LENGTH = 80
SECRET_HEADER = "X-Rarefind-Secret"  # noqa: S105 - the header's name  # nosec B105
SEEN_EVERY = timedelta(minutes=5)  # how exact "last used" is: not every request writes

Seen = TypeVar("Seen", LoginSession, ApiToken)


@dataclass(frozen=True)
class Asker:
    """Who asks, as an error page may say when the transaction is gone: `request.state.asker`."""

    name: str
    role: str


# Asked at each request, so written once: to write it anew takes longer than to ask.
ASK_LOGIN = (
    select(LoginSession)
    .where(LoginSession.token_sha256 == bindparam("token_sha256"))
    .options(joinedload(LoginSession.person))
)


def get_local_person(session: Session) -> Person:
    """Whom the commands of this machine act for: its first admin, made on first use."""
    query = select(Person).filter_by(closed_at=None)
    person = session.scalar(query.order_by(Person.role != "admin", Person.id).limit(1))
    if person is None:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):  # a container's user need not have a name
            name = "me"
        person = Person(name=name, role="admin")
        session.add(person)
        session.flush()
    return person


def issue_sign_in_link(
    session: Session, person: Person, *, base_url: str, settings: Settings
) -> str:
    """A URL that signs `person` in, once."""
    token = secrets.token_urlsafe(32)
    session.add(
        SignInLink(
            token_sha256=sha256(token),
            person_id=person.id,
            expires_at=datetime.now(UTC) + timedelta(hours=settings.sign_in_link_hours),
        )
    )
    return f"{base_url.rstrip('/')}/sign-in?token={token}"


def sign_in(session: Session, token: str, *, request: Request, settings: Settings) -> str:
    """Spend a one-time link; the new login session's token for the cookie."""
    person_id = spend_link(session, token, sets_password=False)
    if person_id is None:
        raise SignInLinkSpent(
            "Each link signs in once and works for a limited time. "
            "Run “rarefind link” where the server runs to print a new one."
        )
    return add_login(session, person_id, request=request, settings=settings)


def spend_link(session: Session, token: str, *, sets_password: bool) -> int | None:
    """Whose one-time link it was; None if it was used, has expired or never was."""
    now = datetime.now(UTC)
    return session.scalar(  # one statement, so that two clicks can't both spend it
        update(SignInLink)
        .where(
            SignInLink.token_sha256 == sha256(token),
            SignInLink.sets_password == sets_password,
            SignInLink.used_at.is_(None),
            SignInLink.expires_at > now,
        )
        .values(used_at=now)
        .returning(SignInLink.person_id)
    )


def add_login(session: Session, person_id: int, *, request: Request, settings: Settings) -> str:
    """A new login session; its token for the cookie."""
    cookie = secrets.token_urlsafe(32)
    session.add(
        LoginSession(
            token_sha256=sha256(cookie),
            person_id=person_id,
            browser=clean(request.headers.get("user-agent", ""))[:300],
            address=client_address(request),
            expires_at=datetime.now(UTC) + timedelta(days=settings.login_days),
        )
    )
    session.flush()
    return cookie


def set_login_cookie(request: Request, response: Response, token: str, settings: Settings) -> None:
    """Keep the login session in the browser, out of reach of scripts and other sites."""
    response.set_cookie(
        cookie_name(request),
        token,
        max_age=int(settings.login_days * 86_400),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )


def sign_out(session: Session, request: Request, response: Response) -> None:
    """End this browser's login session."""
    session.execute(
        update(LoginSession)
        .where(LoginSession.token_sha256 == read_login_hash(request))
        .values(revoked_at=datetime.now(UTC))
    )
    response.delete_cookie(
        cookie_name(request), httponly=True, samesite="lax", secure=request.url.scheme == "https"
    )


def add_token(session: Session, person: Person, name: str, *, scope: str = "search") -> str:
    """A new API token for `person`; it can't be shown again."""
    name = name.strip()
    if not name or len(name) > MAX_TOKEN_NAME_LENGTH or clean(name) != name:
        raise BadInput(f"Give the token a name of 1 to {MAX_TOKEN_NAME_LENGTH} characters.")
    if scope not in TOKEN_SCOPES:
        raise BadInput(f"A token is for {', '.join(TOKEN_SCOPES[:-1])} or {TOKEN_SCOPES[-1]}.")
    if any(token.name == name for token in list_tokens(session, person)):
        raise NameTaken(
            f"A token is called “{name}” already. Revoke it first, or take another name."
        )
    token = secrets.token_urlsafe(32)
    session.add(ApiToken(person_id=person.id, name=name, scope=scope, token_sha256=sha256(token)))
    session.flush()
    return token


def list_tokens(session: Session, person: Person) -> list[ApiToken]:
    """The person's tokens that work, by name."""
    query = select(ApiToken).filter_by(person_id=person.id, revoked_at=None)
    return list(session.scalars(query.order_by(ApiToken.name)))


def revoke_token(session: Session, person: Person, name: str) -> None:
    """Make a token work no longer, from its next request on."""
    for token in list_tokens(session, person):
        if token.name == name:
            token.revoked_at = datetime.now(UTC)
            session.flush()
            return
    raise NotFound(f"No token is called “{name}”.")


def get_asker(request: Request, session: DbSession) -> Person | None:
    """`find_person` as what a route depends on."""
    return find_person(request, session)


def find_person(
    request: Request, session: Session, login: LoginSession | None = None
) -> Person | None:
    """Who is asking, or nobody. A request with a token is its owner's, whatever its cookies.

    `login` of its cookie, if that is known already.
    """
    settings: Settings = request.app.state.settings
    person: Person | None = None
    if (bearer := read_bearer_token(request)) is not None:
        known = select(ApiToken).filter_by(token_sha256=sha256(bearer), revoked_at=None)
        api_token = session.scalar(known)
        if api_token is not None and api_token.person.closed_at is None:
            note_seen(session, api_token)
            request.state.scope = api_token.scope
            person = api_token.person
    elif settings.auth == "local":
        refuse_other_hosts(request)
        person = get_local_person(session)
    elif settings.remote_user_secret and (
        named := request.headers.get(settings.remote_user_header)
    ):
        given = request.headers.get(SECRET_HEADER, "").encode()
        if not secrets.compare_digest(
            given, settings.remote_user_secret.get_secret_value().encode()
        ):
            raise NotSignedIn("The proxy before Rarefind did not send the secret they share.")
        person = get_remote_person(session, named, settings)
        request.state.named_by_site = True
    elif token_hash := read_login_hash(request):
        login = login or session.scalar(ASK_LOGIN, {"token_sha256": token_hash})
        if login and login.revoked_at is None and login.expires_at > datetime.now(UTC):
            note_seen(session, login)
            person = login.person
    person = person if person is not None and person.closed_at is None else None
    limits: Limits = request.app.state.limits
    if person is not None:
        request.state.asker = Asker(person.name, person.role)
        limits.count(request, person.id)
    elif bearer is not None:
        limits.count_wrong_token(client_address(request))
    return person


def check_signed_in(request: Request, person: Person | None) -> Person:
    """Who is asking; an error page says how to sign in otherwise."""
    if person is None and request.url.path.startswith("/api/"):
        raise NotSignedIn(
            "Send a token that works, as “Authorization: Bearer TOKEN”. Make one on the page of "
            "your account, or run “rarefind token add NAME” where the server runs."
        )
    if person is None:
        raise NotSignedIn(
            "Sign in with your name and password, open the link that the server printed when it "
            "started, or run “rarefind link” where it runs to print a new one."
        )
    if request.method not in SAFE_METHODS:
        need_scope(request, "search")
    return person


def check_admin(request: Request, person: Person) -> Person:
    """The person asking, if an admin."""
    need_scope(request, "admin")
    if person.role != "admin":
        what = "add images" if request.url.path.startswith("/collections") else "do this"
        raise NotAllowed(f"Only an admin can {what}. Ask one of yours.")
    return person


# These only look at what is known already: as coroutines they need no thread of their own.


async def get_person(
    request: Request, person: Annotated[Person | None, Depends(get_asker)]
) -> Person:
    """Who is asking; an error page says how to sign in otherwise."""
    return check_signed_in(request, person)


async def get_searcher(request: Request, person: Annotated[Person, Depends(get_person)]) -> Person:
    """The person asking, if they may search and not only look."""
    need_scope(request, "search")
    refuse_viewer(person)
    return person


def may_see_labels(person: Person) -> bool:
    """Whether a person may see known labels, outside searches."""
    return person.role in ("admin", "evaluator")


async def get_evaluator(person: Annotated[Person, Depends(get_person)]) -> Person:
    """The person asking, if they may see known labels."""
    if not may_see_labels(person):
        raise NotAllowed("Only an evaluator can replay searches on known labels.")
    return person


async def get_admin(request: Request, person: Annotated[Person, Depends(get_person)]) -> Person:
    """The person asking, if an admin."""
    return check_admin(request, person)


async def get_present(request: Request, person: Annotated[Person, Depends(get_person)]) -> Person:
    """The person themselves, in a browser: no program may make tokens or change passwords."""
    if read_bearer_token(request) is not None:
        raise NotAllowed("A token can't be used here. Sign in with a browser.")
    return person


MaybeSignedIn = Annotated[Person | None, Depends(get_asker)]
SignedIn = Annotated[Person, Depends(get_person)]
Searcher = Annotated[Person, Depends(get_searcher)]
Evaluator = Annotated[Person, Depends(get_evaluator)]
Admin = Annotated[Person, Depends(get_admin)]
Present = Annotated[Person, Depends(get_present)]


def refuse_viewer(person: Person) -> None:
    """Viewers look at what others do."""
    if person.role == "viewer":
        raise NotAllowed(
            "Your account is for looking only. Ask an admin to make you an ecologist if you want "
            "to search."
        )


def need_scope(request: Request, scope: str) -> None:
    """Refuse a token that was made for less; a browser may do all that its person may."""
    given = getattr(request.state, "scope", TOKEN_SCOPES[-1])
    if TOKEN_SCOPES.index(given) < TOKEN_SCOPES.index(scope):
        raise NotAllowed(
            f"This token is for “{given}” only, and this needs one for “{scope}”. Make another."
        )


def refuse_cross_site(request: Request) -> None:
    """Let a changing request pass only if this site's own pages sent it.

    Browsers say where a request comes from in Sec-Fetch-Site, older ones in Origin; a program
    that sends neither holds no browser's cookie by accident.
    """
    if request.method in SAFE_METHODS or read_bearer_token(request) is not None:
        return  # no browser adds a token by itself, and with one the cookie does not count
    fetch_site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if fetch_site is not None:
        own = fetch_site in ("same-origin", "none")
    else:
        own = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not own:
        raise CrossSiteRequest("Nothing was changed. Go back to Rarefind and do it from there.")


def refuse_other_hosts(request: Request) -> None:
    """Without sign-in, only pages of this machine's own address may ask.

    Another site could give its name this machine's address, and a browser would then hold that
    site's pages for ours.
    """
    if not is_loopback(request.url.hostname or ""):
        raise NotAllowed(
            "Rarefind runs without accounts here (RAREFIND_AUTH=local), for this machine alone. "
            f"Open it as http://127.0.0.1:{request.url.port or 80}."
        )


def get_remote_person(session: Session, named: str, settings: Settings) -> Person:
    """The person a proxy names, added if there is none of that name."""
    try:
        name = named.encode("latin-1").decode()  # headers are bytes; names may have accents
    except UnicodeError:
        name = named
    name = check_person_name(name)
    query = select(Person).where(same_name(name))
    if (person := session.scalar(query)) is None:
        made = insert(Person).values(name=name, role=settings.remote_user_role)
        session.execute(made.on_conflict_do_nothing())
        person = session.scalars(query).one()
    return person


def is_named_by_site(request: Request) -> bool:
    """Whether a proxy signed the person in: by its name for them it finds them again."""
    return getattr(request.state, "named_by_site", False)


def check_person_name(name: str) -> str:
    """A person's name, if it can be one."""
    name = " ".join(name.split())
    if not name or len(name) > MAX_PERSON_NAME_LENGTH or clean(name) != name:
        raise BadInput(f"A name has 1 to {MAX_PERSON_NAME_LENGTH} letters, digits or signs.")
    return name


def same_name(name: str) -> ColumnElement[bool]:
    """The condition that a person has this name, in small or capital letters."""
    return func.lower(Person.name) == func.lower(name)


def note_seen(session: Session, seen: Seen) -> None:
    """Keep when a login session or token was used last, without waiting for another request."""
    now = datetime.now(UTC)
    if seen.seen_at is None or now - seen.seen_at > SEEN_EVERY:
        table = type(seen)
        free = select(table.id).filter_by(id=seen.id).with_for_update(skip_locked=True)
        session.execute(
            update(table)
            .where(table.id.in_(free.scalar_subquery()))
            .values(seen_at=now)
            .execution_options(synchronize_session=False)
        )


def read_bearer_token(request: Request) -> str | None:
    """The API token a program sent, if it sent one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def read_login_hash(request: Request) -> bytes | None:
    """What the database keeps of this browser's cookie, if it has one."""
    token = request.cookies.get(cookie_name(request))
    return sha256(token) if token else None


def cookie_name(request: Request) -> str:
    """Cookies ignore ports: two servers on one machine must not sign each other out."""
    return f"rarefind_login_{request.url.port or request.url.scheme}"


def client_address(request: Request) -> str:
    """The network address a request came from; a trusted proxy names the browser's."""
    return request.client.host if request.client else ""


def clean(text: str) -> str:
    """`text` without what no name needs and no table holds."""
    return "".join(letter for letter in text if letter.isprintable())


def sha256(token: str) -> bytes:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).digest()
