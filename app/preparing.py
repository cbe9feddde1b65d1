"""Original files to the pixels an embedder takes; runs in the worker processes of indexing.

Like `reading.py`, whose decoder it uses, it does not import the database.
"""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from app.engine.embedders import Pixels, Preparation
from app.reading import (
    DAMAGED,
    EXTENSIONS,
    NOT_READABLE,
    Refusal,
    check_signature,
    check_size,
    decode_for,
    read_metadata,
)

GONE = "Its original is gone."


@dataclass(frozen=True, slots=True)
class Original:
    """A file to prepare, and the size it had when it was imported."""

    file: str
    size_bytes: int


def prepare_files(
    originals: list[Original], prepare: Preparation, max_megapixels: float
) -> list[Pixels | Refusal]:
    """Prepare each file; in place of one that cannot be used stands its `Refusal`."""
    outcomes: list[Pixels | Refusal] = []
    for original in originals:
        try:
            outcomes.append(_prepare_file(original, prepare, max_megapixels))
        except Refusal as refusal:
            outcomes.append(refusal)
        except FileNotFoundError:
            outcomes.append(Refusal(NOT_READABLE, GONE))
        except OSError as error:
            outcomes.append(Refusal(NOT_READABLE, f"It can't be read: {error}"))
        except Exception as error:  # decoders answer hostile bytes with nearly any error
            outcomes.append(Refusal(DAMAGED, f"It can't be decoded: {error}"))
    return outcomes


def _prepare_file(original: Original, prepare: Preparation, max_megapixels: float) -> Pixels:
    data = Path(original.file).read_bytes()
    if len(data) != original.size_bytes:
        raise Refusal(NOT_READABLE, "The file was changed since it was imported.")
    check_signature(data[:32])
    stream = io.BytesIO(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that it then copes with
        with PIL.Image.open(stream, formats=list(EXTENSIONS)) as opened:
            check_size(*opened.size, max_megapixels)
            orientation, _ = read_metadata(opened)
            picture, make_pixels = decode_for(prepare, opened, stream, orientation)
    return make_pixels(picture)
