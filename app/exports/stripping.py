"""Copies of originals without what is written into them beside the picture: place, owner, notes.

A JPEG is not encoded again: its segments are copied but for those of metadata, which no library at
hand does whole. Other formats are written anew as PNG, which loses no pixel.
Source: ITU-T T.81, annex B, for the segments; Exif 2.32 for the one tag that is kept.
"""

import io
import struct
from functools import partial
from pathlib import Path

import PIL.Image
import PIL.ImageOps

from app.reading import EXTENSIONS, Refusal, open_file
from app.workers import Readers

# Kept: JFIF (APP0), ICC profiles (APP2 of that name) and Adobe's colour transform (APP14).
APP0, APP2, APP14, APP15, COMMENT = 0xE0, 0xE2, 0xEE, 0xEF, 0xFE
START, END, SCAN = 0xD8, 0xD9, 0xDA
ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length
ICC = b"ICC_PROFILE\x00"


class NotCopied(Exception):
    """A file that can't be copied without its metadata; the sentence says why."""


def copy_without_metadata(
    path: Path, *, orientation: int | None = None, max_megapixels: float, readers: Readers
) -> bytes:
    """The picture of a file, upright as before, and nothing else that was written into it.

    Without `orientation` it is read in the file. It is decoded by one of the `readers`.
    """
    try:
        return readers.run(partial(_copy, str(path), orientation, max_megapixels))
    except Refusal as refusal:
        detail = refusal.detail[0].lower() + refusal.detail[1:].rstrip(".")
        raise NotCopied(f"its original can't be used: {detail}") from refusal


def _copy(file: str, orientation: int | None, max_megapixels: float) -> bytes:
    try:
        with open_file(file) as stream:
            data = stream.read()
        if orientation is None:
            orientation = read_orientation(data)
        if data[:2] == b"\xff\xd8":
            return strip_jpeg(data, orientation=orientation)
        return write_png(data, max_megapixels=max_megapixels)
    except (NotCopied, Refusal):
        raise
    except OSError as error:
        raise NotCopied(f"its original can't be read: {error.strerror or error}") from error
    except Exception as error:  # whatever a decoder makes of a damaged file
        raise NotCopied(f"its original is damaged: {error}") from error


def read_orientation(data: bytes) -> int:
    """Which way is up in a photo, by what its camera wrote."""
    with PIL.Image.open(io.BytesIO(data), formats=list(EXTENSIONS)) as opened:
        return int(opened.getexif().get(0x0112, 1))


def strip_jpeg(data: bytes, *, orientation: int) -> bytes:
    """A JPEG's bytes without metadata: only JFIF, colour, and which way is up are kept."""
    kept = bytearray(b"\xff\xd8")
    if orientation != 1:
        kept += segment(0xE1, b"Exif\x00\x00" + orientation_tag(orientation))
    at = 2
    while True:
        at = data.find(b"\xff", at)
        while at >= 0 and data[at + 1 : at + 2] == b"\xff":  # fill bytes
            at += 1
        if at < 0 or at + 1 >= len(data):
            raise NotCopied("its original is cut short")
        marker = data[at + 1]
        if marker == END:
            # Whatever follows is no part of the picture: previews have metadata of their own.
            return bytes(kept + b"\xff\xd9")
        if marker in ALONE:
            kept += data[at : at + 2]
            at += 2
            continue
        (length,) = struct.unpack(">H", data[at + 2 : at + 4])
        end = at + 2 + length
        if is_kept(marker, data[at + 4 : at + 4 + len(ICC)]):
            kept += data[at:end]
        if marker == SCAN:
            start, end = end, find_marker(data, end)
            kept += data[start:end]
        at = end


def is_kept(marker: int, name: bytes) -> bool:
    """Whether a segment is part of the picture."""
    if marker == APP2:
        return name == ICC
    return marker in (APP0, APP14) or not (APP0 <= marker <= APP15 or marker == COMMENT)


def find_marker(data: bytes, at: int) -> int:
    """Where the coded pixels that begin at `at` end: at the next marker that is none of theirs."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0 or at + 1 >= len(data):
            raise NotCopied("its original is cut short")
        if data[at + 1] != 0 and data[at + 1] not in ALONE and data[at + 1] != 0xFF:
            return at
        at += 1 if data[at + 1] == 0xFF else 2


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def orientation_tag(orientation: int) -> bytes:
    """The smallest TIFF directory: one tag, the orientation."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"MM\x00\x2a" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)


def write_png(data: bytes, *, max_megapixels: float) -> bytes:
    """An image of any other format as PNG, upright, with its colour profile and nothing else."""
    with PIL.Image.open(io.BytesIO(data), formats=list(EXTENSIONS)) as opened:
        if opened.width * opened.height > max_megapixels * 1e6:
            raise NotCopied("its original is too large to be copied")
        profile = opened.info.get("icc_profile")
        upright = PIL.ImageOps.exif_transpose(opened)
        if upright.mode not in ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"):
            upright = upright.convert("RGB")
            profile = None
        clean = PIL.Image.new(upright.mode, upright.size)
        if upright.mode == "P" and upright.palette is not None:
            clean.putpalette(upright.palette)
            if "transparency" in upright.info:
                clean.info["transparency"] = upright.info["transparency"]
        clean.paste(upright)
        written = io.BytesIO()
        clean.save(written, "PNG", icc_profile=profile)
        return written.getvalue()
