"""The embedders with a plain name, as people choose among them: what each is for, and takes."""

from dataclasses import dataclass

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.engine.embedders import EMBEDDERS, is_on_disk
from app.settings import Settings
from app.tables import ImageIndex, Import

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
    """Images per second of the newest import or build that embedded all its images itself."""
    ended = Import.ended_at
    run = (
        select(
            Import.imported_count.label("images"), (ended - Import.started_at).label("took"), ended
        )
        .where(Import.embedder == embedder, Import.state == "done")
        .where(Import.imported_count >= ENOUGH_IMAGES, ended > Import.started_at)
    )
    ready = ImageIndex.ready_at
    build = (
        select(ImageIndex.image_count, ready - ImageIndex.started_at, ready)
        .where(ImageIndex.embedder == embedder, ImageIndex.state == "ready")
        .where(
            ImageIndex.copied_count == 0,
            ImageIndex.image_count >= ENOUGH_IMAGES,
            ready > ImageIndex.started_at,
        )
    )
    newest = session.execute(run.union_all(build).order_by(text("3 DESC")).limit(1)).first()
    return None if newest is None else newest.images / newest.took.total_seconds()
