"""Who did what that matters to others: imported, deleted, shared, exported, changed roles.

Events are only ever added, and the database refuses anything else.
"""

from dataclasses import dataclass
from math import ceil

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import NotFound
from app.tables import AuditEvent, Collection, Person, Search

EVENTS_PER_PAGE = 100
# What a filter is called, and the kinds of events it shows.
AUDIT_KINDS = {
    "import": "Images added",
    "delete": "Deleted, put away, put back",
    "share": "Shared, opened, closed",
    "export": "Exported",
    "account": "Accounts and roles",
    "token": "Tokens",  # nosec B105 # what a kind of event is called
}


@dataclass(frozen=True)
class AuditPage:
    """One page of events, the newest first."""

    events: list[AuditEvent]
    page: int
    pages: int
    total: int
    people: list[str]  # all names that some event has


def note(
    session: Session,
    person: Person | None,
    kind: str,
    sentence: str,
    *,
    collection: Collection | None = None,
    search: Search | None = None,
) -> None:
    """Keep that a person did something; None is Rarefind itself."""
    if kind not in AUDIT_KINDS:
        raise ValueError(kind)
    session.add(
        AuditEvent(
            person_id=person.id if person else None,
            person_name=person.name if person else "Rarefind",
            kind=kind,
            sentence=sentence,
            collection_id=collection.id if collection else search.collection_id if search else None,
            search_id=search.id if search else None,
        )
    )
    session.flush()


def list_events(session: Session, *, kind: str, who: str, page: int) -> AuditPage:
    """Events, all or of one kind and person."""
    query = select(AuditEvent)
    if kind:
        if kind not in AUDIT_KINDS:
            raise NotFound("There is no such kind of event.")
        query = query.filter_by(kind=kind)
    if who:
        query = query.filter_by(person_name=who)
    total = session.scalar(select(func.count()).select_from(query.subquery())) or 0
    pages = max(1, ceil(total / EVENTS_PER_PAGE))
    page = min(max(1, page), pages)
    shown = query.order_by(AuditEvent.id.desc()).limit(EVENTS_PER_PAGE)
    names = select(AuditEvent.person_name).distinct().order_by(AuditEvent.person_name)
    return AuditPage(
        events=list(session.scalars(shown.offset((page - 1) * EVENTS_PER_PAGE))),
        page=page,
        pages=pages,
        total=total,
        people=list(session.scalars(names)),
    )
