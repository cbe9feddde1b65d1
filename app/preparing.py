"""Original files to the pixels an embedder takes; runs in the worker processes of indexing.

Like `reading.py`, whose decoder it uses, it does not import the database.
"""

import io
import warnings
from dataclasses import dataclass
from math import ceil, floor
from typing import BinaryIO

import PIL.Image

from app.engine.embedders import Pixels, Preparation
from app.reading import (
    DAMAGED,
    EXTENSIONS,
    LEAST_DECODED,
    NO_MEMORY,
    NOT_READABLE,
    REDUCTIONS,
    SPARE_SCALE,
    TOO_LARGE,
    Refusal,
    check_signature,
    check_size,
    decode,
    decode_for,
    is_jpeg,
    open_file,
    read_metadata,
    reduce_size,
)

GONE = "Its original is gone."
WHOLE_PICTURE = (0.0, 0.0, 1.0, 1.0)
WHOLE = 1e-6  # a pixel that a rounding alone reaches into is none


@dataclass(frozen=True, slots=True)
class Original:
    """A file to prepare, and the size it had when it was imported."""

    file: str
    size_bytes: int
    # What is looked at of it: left, top, right, bottom, as shares of the upright picture.
    area: tuple[float, float, float, float] | None = None


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
        except MemoryError:
            outcomes.append(Refusal(TOO_LARGE, NO_MEMORY))
        except Exception as error:  # decoders answer hostile bytes with nearly any error
            outcomes.append(Refusal(DAMAGED, f"It can't be decoded: {error}"))
    return outcomes


def _prepare_file(original: Original, prepare: Preparation, max_megapixels: float) -> Pixels:
    with open_file(original.file) as file:
        data = file.read(original.size_bytes + 1)
    if len(data) != original.size_bytes:
        raise Refusal(NOT_READABLE, "The file was changed since it was imported.")
    check_signature(data[:32])
    stream = io.BytesIO(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that it then copes with
        with PIL.Image.open(stream, formats=list(EXTENSIONS)) as opened:
            check_size(*opened.size, max_megapixels)
            orientation, _ = read_metadata(opened)
            if original.area is not None:
                return prepare(_cut(original.area, prepare, opened, stream, orientation))
            picture, make_pixels = decode_for(prepare, opened, stream, orientation)
    return make_pixels(picture)


def _cut(
    area: tuple[float, float, float, float],
    prepare: Preparation,
    opened: PIL.Image.Image,
    stream: BinaryIO,
    orientation: int,
) -> PIL.Image.Image:
    """A part of the upright picture, of a large JPEG decoded smaller as far as that is enough."""
    left, top, right, bottom = area
    width, height = opened.size
    across, down = (height, width) if orientation >= 5 else (width, height)
    shorter = min((right - left) * across, (bottom - top) * down)
    enough = max(SPARE_SCALE * prepare.resize_side, LEAST_DECODED)
    fitting = [by for by in REDUCTIONS if shorter >= by * enough]
    by = max(fitting) if fitting and is_jpeg(opened) else 1
    picture = decode(opened, stream, orientation, reduce_size((width, height), by))
    x, y = floor(left * picture.width + WHOLE), floor(top * picture.height + WHOLE)
    last_x, last_y = ceil(right * picture.width - WHOLE), ceil(bottom * picture.height - WHOLE)
    return picture.crop((x, y, max(x + 1, last_x), max(y + 1, last_y)))
