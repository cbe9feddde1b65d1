"""The target card: what counts as yes and what does not, in words and pictures; reasons for no."""

from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, joinedload

from app.adjusting import MAX_COUNTS_LENGTH, check_text
from app.errors import BadInput, NotFound
from app.tables import CardImage, Image, Search

MAX_CARD_IMAGES = 12  # of each kind: they stand beside the grid
REASON_TITLES = {
    "other-species": "Other species",
    "too-poor": "Too poor to tell",
    "empty": "Nothing there",
}


@dataclass(frozen=True)
class TargetCard:
    """The pictures of a card, in the order they were put there."""

    yes: list[Image]
    no: list[Image]


def read_card(session: Session, search: Search) -> TargetCard:
    """The pictures of the card; without those removed from the collection."""
    rows = session.scalars(
        select(CardImage)
        .join(Image, Image.id == CardImage.image_id)
        .where(CardImage.search_id == search.id, Image.removed_at.is_(None))
        .order_by(CardImage.added_at, CardImage.image_id)
        .options(joinedload(CardImage.image))
        .execution_options(populate_existing=True)
    ).all()
    return TargetCard(
        yes=[one.image for one in rows if one.counts],
        no=[one.image for one in rows if not one.counts],
    )


def find_on_card(session: Session, search: Search, image_id: int) -> str | None:
    """Whether the image is on the card: yes, no, or None where it is not."""
    found = session.get(CardImage, (search.id, image_id), populate_existing=True)
    return None if found is None else "yes" if found.counts else "no"


def list_reasons(search: Search) -> dict[str, str]:
    """The reasons for a no that the search knows, as they are kept and as they are shown."""
    return REASON_TITLES | {reason: reason for reason in search.no_reasons}


def change_card(session: Session, search: Search, *, counts_as_yes: str, counts_as_no: str) -> None:
    """Say in words what counts as yes, and what does not."""
    search.counts_as_yes = check_text("What counts as yes", counts_as_yes, MAX_COUNTS_LENGTH)
    search.counts_as_no = check_text("What does not count", counts_as_no, MAX_COUNTS_LENGTH)
    session.flush()


def put_on_card(session: Session, search: Search, image_id: int, what: str) -> None:
    """Show an image on the card as a yes or as a no, or take it `off`."""
    if what not in ("yes", "no", "off"):
        raise BadInput("A picture stands on the card as a yes, or as a no.")
    if what == "off":
        session.execute(delete(CardImage).filter_by(search_id=search.id, image_id=image_id))
        return
    image = session.get(Image, image_id)
    if image is None or image.collection_id != search.collection_id or image.removed_at:
        raise NotFound("There is no such image in this collection.")
    counts = what == "yes"
    others = session.scalar(
        select(func.count()).where(
            CardImage.search_id == search.id,
            CardImage.counts == counts,
            CardImage.image_id != image_id,
        )
    )
    if others is not None and others >= MAX_CARD_IMAGES:
        raise BadInput(
            f"The card has room for {MAX_CARD_IMAGES} pictures of each kind. Take one off first."
        )
    made = insert(CardImage).values(search_id=search.id, image_id=image_id, counts=counts)
    session.execute(
        made.on_conflict_do_update(
            index_elements=[CardImage.search_id, CardImage.image_id], set_={"counts": counts}
        )
    )
