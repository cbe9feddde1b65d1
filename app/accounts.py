"""People's accounts: adding and closing them, roles, passwords, and where somebody is signed in.

There is no mail server: an admin hands a person a one-time link, by which they set a password.
"""

import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from fastapi import Request
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import ColumnElement, Integer, cast, delete, func, select, update
from sqlalchemy.orm import Session

from app.audit import note
from app.database import ADDRESS_LOCK, NAME_LOCK
from app.errors import BadInput, NameTaken, NotAllowed, NotFound, PasswordLinkSpent
from app.security import (
    add_login,
    add_token,
    check_person_name,
    client_address,
    is_named_by_site,
    read_login_hash,
    revoke_token,
    same_name,
    sha256,
    spend_link,
)
from app.settings import Settings
from app.tables import ROLES, ApiToken, FailedSignIn, LoginSession, Person, Seat, SignInLink

PASSWORD_LENGTHS = range(10, 201)
# Wrong tries that lock out, and for how long: one person's slips never come near, guessing does.
LOCKED_FOR = timedelta(minutes=15)
TRIES_OF_NAME_HERE = 5  # one name from one address
TRIES_OF_NAME = 25  # one name from anywhere: somebody else's tries must not lock a person out soon
TRIES_HERE = 50  # any names from one address


@dataclass(frozen=True)
class Account:
    """A person as the admin's page shows them."""

    person: Person
    seen_at: datetime | None
    token_count: int
    awaits_password: bool  # a link by which they set it is out and works
    link_count: int  # that were ever made for it


@dataclass(frozen=True)
class SignedInWith:
    """What a name and a password led to: a cookie, or a sentence and how long to wait."""

    cookie: str | None = None
    problem: str = ""
    wait_s: int = 0


def add_person(session: Session, name: str, role: str, *, by: Person) -> Person:
    """A new account, without a password yet."""
    person = Person(name=check_person_name(name), role=check_role(role))
    if session.scalar(select(Person.id).where(same_name(person.name))) is not None:
        raise NameTaken(f"Somebody is called “{person.name}” already. Take another name.")
    session.add(person)
    session.flush()
    note(session, by, "account", f"Added {person.name} as {role}")
    return person


def get_person_named(session: Session, name: str) -> Person:
    """The person of that name."""
    person = session.scalar(select(Person).where(same_name(" ".join(name.split()))))
    if person is None:
        raise NotFound(f"Nobody is called “{name}”.")
    return person


def get_account(session: Session, person_id: int) -> Person:
    """The person of that number."""
    person = session.get(Person, person_id)
    if person is None:
        raise NotFound("There is no such person.")
    return person


def list_accounts(session: Session) -> list[Account]:
    """Everybody, closed accounts last."""
    logins = _dates(session, LoginSession)
    tokens = _dates(session, ApiToken)
    now = datetime.now(UTC)
    works = SignInLink.sets_password & SignInLink.used_at.is_(None) & (SignInLink.expires_at > now)
    waiting = set(session.scalars(select(SignInLink.person_id).where(works)))
    link_counts = dict(
        session.execute(
            select(SignInLink.person_id, func.count())
            .where(SignInLink.sets_password)
            .group_by(SignInLink.person_id)
        ).all()
    )
    counts = dict(
        session.execute(
            select(ApiToken.person_id, func.count())
            .where(ApiToken.revoked_at.is_(None))
            .group_by(ApiToken.person_id)
        ).all()
    )
    people = session.scalars(
        select(Person).order_by(Person.closed_at.is_not(None), func.lower(Person.name))
    )
    return [
        Account(
            person,
            seen_at=max(
                (one[person.id] for one in (logins, tokens) if one.get(person.id)), default=None
            ),
            token_count=counts.get(person.id, 0),
            awaits_password=person.id in waiting,
            link_count=link_counts.get(person.id, 0),
        )
        for person in people
    ]


def list_awaited(accounts: Sequence[Account], settings: Settings) -> set[int]:
    """The ids of those who have not signed in yet, as far as that can be told.

    Whom a site signs in, or the local mode, leaves no login session: nothing is said of anybody.
    """
    if settings.auth == "local" or settings.remote_user_secret:
        return set()
    return {one.person.id for one in accounts if one.seen_at is None}


def rename(session: Session, person: Person, name: str, *, by: Person, request: Request) -> None:
    """Give a person another name, by which they then sign in."""
    if is_named_by_site(request):
        raise BadInput(
            "Your site signs people in by these names, and by them Rarefind knows what is whose. "
            "They can't be changed here."
        )
    name = check_person_name(name)
    other = select(Person.id).where(same_name(name), Person.id != person.id)
    if session.scalar(other) is not None:
        raise NameTaken(f"Somebody is called “{name}” already. Take another name.")
    if name != person.name:
        own = by.id == person.id
        what = f"Took the name {name}" if own else f"Gave {person.name} the name {name}"
        note(session, by, "account", what)
        person.name = name
        session.flush()


def change_role(session: Session, person: Person, role: str, *, by: Person) -> None:
    """Give a person another role; there must always be an admin."""
    check_role(role)
    if role != "admin":
        _keep_an_admin(session, person)
    if role != person.role:
        note(session, by, "account", f"Changed {person.name} from {person.role} to {role}")
        person.role = role
        session.flush()


def close_account(session: Session, person: Person, *, by: Person) -> None:
    """Let a person in no more; their searches and answers stay. A reset opens it again."""
    _keep_an_admin(session, person)
    person.closed_at = datetime.now(UTC)
    person.password_hash = None
    _void_links(session, person)
    sign_out_everywhere(session, person)
    session.execute(
        update(ApiToken)
        .where(ApiToken.person_id == person.id, ApiToken.revoked_at.is_(None))
        .values(revoked_at=func.now())
    )
    # Who is not there holds no images: others of their searches are asked them.
    session.execute(
        update(Seat)
        .where(Seat.person_id == person.id, Seat.here_until > func.now())
        .values(here_until=func.now())
    )
    note(session, by, "account", f"Closed the account of {person.name}")


def reset_password(
    session: Session,
    person: Person,
    *,
    by: Person,
    base_url: str,
    settings: Settings,
    link_count: int | None = None,
) -> str:
    """A link by which the person sets a password, once; until then they can't sign in.

    `link_count`: how many were made for them when the form was drawn. Sent a second time it must
    not end the link that it made, nor the password that was set by it since.
    """
    session.refresh(person, with_for_update=True)  # two clicks come one after the other
    made = select(func.count()).where(SignInLink.person_id == person.id, SignInLink.sets_password)
    if link_count not in (None, session.scalar(made)):
        raise BadInput(
            f"A link for {person.name} was made since this page was opened, so nothing was changed "
            "now. If that link is lost, reset the password once more."
        )
    _void_links(session, person)
    sign_out_everywhere(session, person)
    person.password_hash = person.closed_at = None
    token = secrets.token_urlsafe(32)
    session.add(
        SignInLink(
            token_sha256=sha256(token),
            person_id=person.id,
            sets_password=True,
            expires_at=datetime.now(UTC) + timedelta(days=settings.password_link_days),
        )
    )
    note(session, by, "account", f"Made a link by which {person.name} sets a password")
    return f"{base_url.rstrip('/')}/password?token={token}"


def find_link_owner(session: Session, token: str) -> Person:
    """Whose password a link sets, if it still works; it is not spent by being looked at."""
    link = session.get(SignInLink, sha256(token))
    works = link and link.sets_password and link.used_at is None
    if not link or not works or link.expires_at <= datetime.now(UTC):
        raise PasswordLinkSpent(
            "Each link sets a password once and works for a limited time. Ask an admin of this "
            "Rarefind for a new one."
        )
    return session.get_one(Person, link.person_id)


def set_password_by_link(
    session: Session, token: str, password: str, *, request: Request, settings: Settings
) -> str:
    """Spend the link, keep the password and sign the person in; the token for the cookie."""
    person = find_link_owner(session, token)
    hashed = hash_password(person, password)
    if spend_link(session, token, sets_password=True) is None:
        find_link_owner(session, token)  # says that it was spent meanwhile
    person.password_hash = hashed
    note(session, person, "account", "Set a password by a link")
    session.execute(delete(FailedSignIn).where(FailedSignIn.name == person.name.lower()))
    return add_login(session, person.id, request=request, settings=settings)


def change_password(
    session: Session, person: Person, *, old: str, new: str, request: Request
) -> str | None:
    """Change one's own password and sign out everywhere else; the first one needs no old one.

    A wrong old one is a sentence and counts as a failed sign-in: the caller must not raise.
    """
    hashed = hash_password(person, new)
    if person.password_hash is not None:
        typed, address = person.name.lower(), client_address(request)
        _take_turns(session, typed, address)
        if (locked := _find_lock(session, typed, address)) is not None:
            return locked.problem
        if not _hasher().verify(old, person.password_hash):
            _add_failure(session, typed, address)
            return "That is not your current password. Nothing was changed."
    person.password_hash = hashed
    sign_out_everywhere(session, person, but=read_login_hash(request))
    note(session, person, "account", "Changed their password")
    return None


def make_token(session: Session, person: Person, name: str, scope: str) -> str:
    """A new API token, shown once."""
    token = add_token(session, person, name, scope=scope)
    note(session, person, "token", f"Made the token “{name.strip()}” for “{scope}”")
    return token


def end_token(session: Session, person: Person, name: str) -> None:
    """Make a token work no longer."""
    revoke_token(session, person, name)
    note(session, person, "token", f"Revoked the token “{name}”")


def sign_in_with_password(
    session: Session, name: str, password: str, *, request: Request, settings: Settings
) -> SignedInWith:
    """Sign in, or say why not. What was tried is kept, so the caller must not raise.

    An unknown name takes as long as a known one. Whether tries were right is told one after the
    other, and not to who is locked out by then: by hundreds at once nobody gets more of them. The
    slow part, comparing the password, comes before, so that a station behind one address does
    not wait for each other.
    """
    typed = " ".join(name.split()).lower().replace("\x00", "")[:200]
    address = client_address(request)
    if (locked := _find_lock(session, typed, address)) is not None:
        return locked
    person = session.scalar(select(Person).where(same_name(typed), Person.closed_at.is_(None)))
    known = person.password_hash if person else None
    nobodys = _no_ones_hash()  # for everybody, as it takes time when it is made first
    password = password[: PASSWORD_LENGTHS[-1]]
    right, renewed = _hasher().verify_and_update(password, known or nobodys)
    _take_turns(session, typed, address)
    if (locked := _find_lock(session, typed, address)) is not None:
        return locked
    if person is None or known is None or not right:
        _add_failure(session, typed, address)
        return SignedInWith(
            problem="The name or the password is not right. If you have forgotten it, an admin of "
            "this Rarefind can give you a link to set a new one."
        )
    person.password_hash = renewed or known
    session.execute(delete(FailedSignIn).filter_by(name=typed, address=address))
    return SignedInWith(cookie=add_login(session, person.id, request=request, settings=settings))


def list_logins(session: Session, person: Person) -> list[LoginSession]:
    """Where a person is signed in, the browser used last first."""
    query = select(LoginSession).where(
        LoginSession.person_id == person.id,
        LoginSession.revoked_at.is_(None),
        LoginSession.expires_at > datetime.now(UTC),
    )
    return list(session.scalars(query.order_by(LoginSession.seen_at.desc(), LoginSession.id)))


def end_login(session: Session, person: Person, login_id: int) -> None:
    """Sign one browser of a person out."""
    login = session.scalar(select(LoginSession).filter_by(id=login_id, person_id=person.id))
    if login is None:
        raise NotFound("There is no such place where you are signed in.")
    login.revoked_at = login.revoked_at or datetime.now(UTC)
    session.flush()


def sign_out_everywhere(session: Session, person: Person, *, but: bytes | None = None) -> None:
    """End all login sessions of a person, but one if it is given by its hash."""
    session.execute(
        update(LoginSession)
        .where(
            LoginSession.person_id == person.id,
            LoginSession.revoked_at.is_(None),
            LoginSession.token_sha256 != (but or b""),
        )
        .values(revoked_at=func.now())
    )


def check_role(role: str) -> str:
    """`role`, if it is one."""
    if role not in ROLES:
        raise BadInput(f"A role is {', '.join(ROLES[:-1])} or {ROLES[-1]}, not “{role}”.")
    return role


def hash_password(person: Person, password: str) -> str:
    """A password as it is kept, if it is a usable one."""
    if len(password) not in PASSWORD_LENGTHS:
        raise BadInput(
            f"A password has {PASSWORD_LENGTHS[0]} to {PASSWORD_LENGTHS[-1]} characters. Three or "
            "four words that only you would put together are good."
        )
    if password.lower().strip() in (person.name.lower(), person.name.lower() * 2):
        raise BadInput("Your name is the first password that others try. Take something else.")
    if len(set(password)) < 4:
        raise BadInput("That password is too easy to guess: it has the same few characters.")
    return _hasher().hash(password)


def _take_turns(session: Session, name: str, address: str) -> None:
    for kind, what in ((ADDRESS_LOCK, address), (NAME_LOCK, name)):
        session.execute(
            select(func.pg_advisory_xact_lock(cast(kind, Integer), func.hashtext(what)))
        )


def _add_failure(session: Session, name: str, address: str) -> None:
    session.add(FailedSignIn(name=name, address=address))
    old = FailedSignIn.at < datetime.now(UTC) - timedelta(days=1)
    session.execute(delete(FailedSignIn).where(old))
    session.flush()


def _find_lock(session: Session, name: str, address: str) -> SignedInWith | None:
    """How long nobody may sign in by this name from this address, as a sentence; None if now."""
    since = datetime.now(UTC) - LOCKED_FOR
    limits: tuple[tuple[int, ColumnElement[bool]], ...] = (
        (TRIES_OF_NAME_HERE, (FailedSignIn.name == name) & (FailedSignIn.address == address)),
        (TRIES_OF_NAME, FailedSignIn.name == name),
        (TRIES_HERE, FailedSignIn.address == address),
    )
    waits = [
        tried_at + LOCKED_FOR
        for most, where in limits
        # The try that, grown too old, makes them few enough.
        for tried_at in session.scalars(
            select(FailedSignIn.at)
            .where(where, FailedSignIn.at > since)
            .order_by(FailedSignIn.at.desc())
            .offset(most - 1)
            .limit(1)
        )
    ]
    if not waits:
        return None
    until = max(waits)
    wait_s = max(1, math.ceil((until - datetime.now(UTC)).total_seconds()))
    minutes = math.ceil(wait_s / 60)
    return SignedInWith(
        problem=f"There were too many wrong tries. Try again at {until.astimezone():%H:%M}, in "
        f"{minutes} minute{'' if minutes == 1 else 's'}, or ask an admin for a link.",
        wait_s=wait_s,
    )


def _keep_an_admin(session: Session, person: Person) -> None:
    """Refuse to take the last admin away; two such requests come one after the other."""
    admins = session.scalars(
        select(Person.id).filter_by(role="admin", closed_at=None).with_for_update()
    ).all()
    if admins == [person.id]:
        raise NotAllowed(
            f"{person.name} is the only admin, and there must be one. Make somebody else an admin "
            "first."
        )


def _void_links(session: Session, person: Person) -> None:
    session.execute(
        update(SignInLink)
        .where(SignInLink.person_id == person.id, SignInLink.used_at.is_(None))
        .values(used_at=func.now())
    )


def _dates(session: Session, table: type[LoginSession] | type[ApiToken]) -> dict[int, datetime]:
    """When each person was seen last, by their login sessions or tokens."""
    query = select(table.person_id, func.max(table.seen_at)).group_by(table.person_id)
    return {person_id: at for person_id, at in session.execute(query) if at is not None}


@cache
def _hasher() -> PasswordHash:
    # As OWASP's Password Storage Cheat Sheet has it. The library's own setting takes three times
    # the memory and eight times the processor: fifty people who came at once waited ten seconds.
    return PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19_456, parallelism=1),))


@cache
def _no_ones_hash() -> str:
    """Verified for a name that is nobody's, so that it takes as long as for one that is."""
    return _hasher().hash(secrets.token_urlsafe(32))
