"""Original files to the pixels an embedder takes; runs in the worker processes of indexing.

Like `reading.py`, whose decoder it uses, it imports neither the database nor torch.
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
    REDUCTIONS,
    Refusal,
    check_signature,
    check_size,
    decode,
    is_jpeg,
    read_metadata,
    reduce_size,
)

# A JPEG is decoded at half, a quarter or an eighth while its shorter side stays this many times
# what the embedder wants: a third to two thirds of the time, for vectors at a cosine of 0.998 or
# more to the exact ones (saving a photograph again at JPEG quality 95 moves them as far).
SPARE_SCALE = 2
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
            picture = _read_picture(original, prepare.resize_side, max_megapixels)
            outcomes.append(prepare(picture))
        except Refusal as refusal:
            outcomes.append(refusal)
        except FileNotFoundError:
            outcomes.append(Refusal(NOT_READABLE, GONE))
        except OSError as error:
            outcomes.append(Refusal(NOT_READABLE, f"It can't be read: {error}"))
        except Exception as error:  # decoders answer hostile bytes with nearly any error
            outcomes.append(Refusal(DAMAGED, f"It can't be decoded: {error}"))
    return outcomes


def _read_picture(original: Original, side: int, max_megapixels: float) -> PIL.Image.Image:
    """The picture upright, in sRGB; of a large JPEG a smaller decoding that will do."""
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
            reduction = 1
            if is_jpeg(opened):
                enough = SPARE_SCALE * side
                shorter = min(opened.size)
                reduction = max((by for by in REDUCTIONS if shorter >= by * enough), default=1)
            return decode(opened, stream, orientation, reduce_size(opened.size, reduction))
