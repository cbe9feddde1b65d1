"""Who is asking: one-time sign-in links, login sessions, and the same-origin check.

Tokens are 256 random bits; the database keeps only their SHA-256, so a stolen copy of it signs
nobody in.
"""

import getpass
import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from sqlalchemy import select, update
from sqlalchemy.orm import Session

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
from app.settings import Settings
from app.tables import ApiToken, LoginSession, Person, SignInLink

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
MAX_TOKEN_NAME_LENGTH = 80


def get_local_person(session: Session) -> Person:
    """The database's one local account, an admin, made on first use."""
    person = session.scalar(select(Person).order_by(Person.id).limit(1))
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


def sign_in(session: Session, token: str, *, settings: Settings) -> str:
    """Spend a one-time link; the new login session's token for the cookie."""
    now = datetime.now(UTC)
    person_id = session.scalar(  # one statement, so that two clicks can't both spend it
        update(SignInLink)
        .where(
            SignInLink.token_sha256 == sha256(token),
            SignInLink.used_at.is_(None),
            SignInLink.expires_at > now,
        )
        .values(used_at=now)
        .returning(SignInLink.person_id)
    )
    if person_id is None:
        raise SignInLinkSpent(
            "Each link signs in once and works for a limited time. "
            "Run “rarefind link” where the server runs to print a new one."
        )
    cookie = secrets.token_urlsafe(32)
    session.add(
        LoginSession(
            token_sha256=sha256(cookie),
            person_id=person_id,
            expires_at=now + timedelta(days=settings.login_days),
        )
    )
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
    token = request.cookies.get(cookie_name(request), "")
    session.execute(
        update(LoginSession)
        .where(LoginSession.token_sha256 == sha256(token))
        .values(revoked_at=datetime.now(UTC))
    )
    response.delete_cookie(cookie_name(request))


def add_token(session: Session, person: Person, name: str) -> str:
    """A new API token for `person`; it can't be shown again."""
    name = name.strip()
    if not name or len(name) > MAX_TOKEN_NAME_LENGTH:
        raise BadInput(f"Give the token a name of 1 to {MAX_TOKEN_NAME_LENGTH} characters.")
    if any(token.name == name for token in list_tokens(session, person)):
        raise NameTaken(
            f"A token is called “{name}” already. Revoke it first, or take another name."
        )
    token = secrets.token_urlsafe(32)
    session.add(ApiToken(person_id=person.id, name=name, token_sha256=sha256(token)))
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


def find_person(request: Request, session: DbSession) -> Person | None:
    """Who is signed in, or nobody. A request with a token is its owner's, whatever its cookies."""
    if (bearer := read_bearer_token(request)) is not None:
        known = select(ApiToken).filter_by(token_sha256=sha256(bearer), revoked_at=None)
        api_token = session.scalar(known)
        return api_token.person if api_token else None
    token = request.cookies.get(cookie_name(request))
    if not token:
        return None
    login = session.get(LoginSession, sha256(token))
    if login is None or login.revoked_at is not None or login.expires_at <= datetime.now(UTC):
        return None
    return login.person


def get_person(request: Request, person: Annotated[Person | None, Depends(find_person)]) -> Person:
    """Who is signed in; an error page says how to sign in otherwise."""
    if person is None and request.url.path.startswith("/api/"):
        raise NotSignedIn(
            "Send a token that works, as “Authorization: Bearer TOKEN”. "
            "Run “rarefind token add NAME” where the server runs to make one."
        )
    if person is None:
        raise NotSignedIn(
            "Open the link that the server printed when it started, "
            "or run “rarefind link” where it runs to print a new one."
        )
    return person


def get_admin(person: Annotated[Person, Depends(get_person)]) -> Person:
    """The person signed in, if an admin."""
    if person.role != "admin":
        raise NotAllowed("Only an admin can do that. Ask one of yours.")
    return person


def get_evaluator(person: Annotated[Person, Depends(get_person)]) -> Person:
    """The person signed in, if they may see known labels."""
    if person.role not in ("admin", "evaluator"):
        raise NotAllowed("Only an evaluator can replay searches on known labels.")
    return person


MaybeSignedIn = Annotated[Person | None, Depends(find_person)]
SignedIn = Annotated[Person, Depends(get_person)]
Admin = Annotated[Person, Depends(get_admin)]
Evaluator = Annotated[Person, Depends(get_evaluator)]


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


def read_bearer_token(request: Request) -> str | None:
    """The API token a program sent, if it sent one."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def cookie_name(request: Request) -> str:
    """Cookies ignore ports: two servers on one machine must not sign each other out."""
    return f"rarefind_login_{request.url.port or request.url.scheme}"


def sha256(token: str) -> bytes:
    """What the database keeps of a token."""
    return hashlib.sha256(token.encode()).digest()
