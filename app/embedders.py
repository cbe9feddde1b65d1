"""The embedders with a plain name, as people choose among them: what each is for, and takes."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from app.engine.embedders import EMBEDDERS, is_on_disk
from app.settings import Settings
from app.tables import ImageIndex

ENOUGH_IMAGES = 100  # to tell a speed by: fewer take about as long as starting does


@dataclass(frozen=True)
class EmbedderChoice:
    """An embedder of the register."""

    name: str
    summary: str
    dimension: int
    knows_words: bool
    size_mb: int  # of the weights, 10^6 bytes; 0 for what comes with Rarefind
    is_on_disk: bool
    files: tuple[str, ...]  # what it needs, as OWNER/NAME/FILE
    per_second: float | None  # images, as measured here; None if it never was


def list_embedders(session: Session, settings: Settings) -> list[EmbedderChoice]:
    """Every embedder with a plain name, the one that is taken unasked first."""
    return [
        EmbedderChoice(
            name=name,
            summary=entry.summary,
            dimension=entry.dimension,
            knows_words=entry.knows_words,
            size_mb=entry.size_mb,
            is_on_disk=is_on_disk(name, weights_folder=settings.weights_folder),
            files=tuple(f"{file.repository}/{file.names[0]}" for file in entry.files),
            per_second=_find_speed(session, name),
        )
        for name, entry in EMBEDDERS.items()
    ]


def _find_speed(session: Session, embedder: str) -> float | None:
    """Images per second of the newest build that embedded all its images itself."""
    earlier = aliased(ImageIndex)
    has_earlier = select(earlier.id).where(
        earlier.collection_id == ImageIndex.collection_id,
        earlier.embedder == ImageIndex.embedder,
        earlier.id < ImageIndex.id,
        earlier.done_count > 0,
    )
    row = session.scalar(
        select(ImageIndex)
        .filter_by(embedder=embedder, state="ready")
        .where(
            ImageIndex.image_count >= ENOUGH_IMAGES,
            ImageIndex.ready_at > ImageIndex.started_at,
            ~has_earlier.exists(),
        )
        .order_by(ImageIndex.id.desc())
        .limit(1)
    )
    if row is None or row.ready_at is None:
        return None
    return row.image_count / (row.ready_at - row.started_at).total_seconds()
