"""One file of a source: what it is, whether it can be read, its metadata and its thumbnails.

Runs in the import's worker processes, which start afresh and meet files nobody has looked at yet:
so it does not import the database, and whatever cannot be used becomes a `Refusal`.
Where the embedder is known, one decoding serves the thumbnails and the pixels it takes.
"""

import hashlib
import io
import math
import os
import resource
import signal
import stat
import threading
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from multiprocessing import parent_process
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import PIL.Image
import simplejpeg
from PIL import ImageCms

from app.engine.embedders import Pixels, Preparation
from app.errors import RarefindError

THUMBNAIL_SIDES = (320, 1280)  # pixels of the long side: in a grid, and about that for large
# libjpeg decodes at a half, a quarter and an eighth in vector instructions; what it gives in this
# range is the large thumbnail as it is. Resizing to 1,280 takes longer than all the rest.
NEAR_LARGE = range(960, 1441)
# The mean of 3 x 3 or 4 x 4 pixels of the large one takes a fifth of the time of resizing it.
NEAR_SMALL = range(300, 361)
REDUCTIONS = (1, 2, 4, 8)
# A JPEG is decoded at half, a quarter or an eighth while its shorter side stays this many times
# what the embedder wants: a third to two thirds of the time, for vectors at a cosine of 0.998 or
# more to the exact ones (saving a photograph again at JPEG quality 95 moves them as far).
SPARE_SCALE = 2
# And never smaller than this, what models of 224 pixels need anyway: to those of 32 pixels the
# difference would be much larger.
LEAST_DECODED = 448
# Measured on camera-trap frames at 1,280 px: WebP saves 40 to 60 % of the bytes for 6 to 27 times
# the encoding time; twelve 320 px JPEGs are about half of the 600 KB that a grid may weigh.
THUMBNAIL_QUALITY = 85

# Reasons by which refused files are grouped.
NOT_AN_IMAGE, NOT_SUPPORTED, EMPTY = "not an image", "not supported", "empty"
DAMAGED, TOO_LARGE, NOT_READABLE = "damaged", "too large", "not readable"

WAITING = 5
NO_MEMORY = "There is not enough memory to decode it."
ZIP_WITHIN = "It is a zip: unpack it, and add the folder, or add the zip by itself."
NO_FILE = "It is not a file but a device or a pipe."
CHANGED = "It was changed while it was read: import it again once nobody writes to it."

EXTENSIONS = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "GIF": ".gif",
    "BMP": ".bmp",
}
SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"BM",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
)
UPRIGHT = {  # EXIF orientation -> what turns the stored pixels upright
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}

# Pillow's own limit is fixed; ours is a setting, held against the header before pixels are decoded.
PIL.Image.MAX_IMAGE_PIXELS = None

File = TypeVar("File")
Result = TypeVar("Result")
Stamp = tuple[int, int]  # size in bytes, time of the last change in ns


class Refusal(Exception):
    """Why a file does not become an image: a short group and a sentence. Workers return it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was found in a source, before anything of it is read."""

    path: str  # relative to the source, as people know it
    size_bytes: int
    modified_ns: int  # of a zip entry its CRC-32: packing times say nothing about content
    place: str | int  # the file on disk, or the number of the entry in the zip


@dataclass(frozen=True, slots=True)
class Reading:
    """What every worker of one import must know."""

    home: Path
    max_megapixels: float
    originals: Path  # the collection's folder for unpacked and copied originals
    copy: bool
    zip_file: Path | None
    prepare: Preparation | None = None  # what the embedder takes, if vectors are made on the way


@dataclass(frozen=True, slots=True)
class Metadata:
    """What the camera wrote; None where it wrote nothing usable."""

    captured_at: datetime | None = None  # camera-local, without a zone
    latitude: float | None = None
    longitude: float | None = None
    camera: str | None = None


@dataclass(frozen=True, slots=True)
class ReadImage:
    """An image that could be decoded and has its thumbnails.

    `pixels` are what the embedder takes, where it was known. None also where they could not be
    made: indexing then tries again, and says why not.
    """

    sha256: str
    file: str  # where the original is on disk
    size_bytes: int
    format: str
    width: int  # pixels, upright
    height: int
    orientation: int
    metadata: Metadata
    pixels: Pixels | None = None


def start_worker(most_bytes: int | None = None) -> None:
    """Set up a worker process: it ends with the import, whichever way that ends.

    Of `most_bytes` for what it works on, more is refused by the system; macOS knows no such limit.
    """
    if most_bytes is not None:
        _, highest = resource.getrlimit(resource.RLIMIT_DATA)
        most = most_bytes if highest == resource.RLIM_INFINITY else min(most_bytes, highest)
        resource.setrlimit(resource.RLIMIT_DATA, (most, highest))
    # Should torch come to be used, on the worker's own core: it reads this when it is loaded.
    os.environ["OMP_NUM_THREADS"] = "1"
    # Ctrl-C reaches the whole process group; the import stops its workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def within(limit_s: float, read: Callable[[], Result]) -> Result:
    """What `read` gives; if that takes longer, the system ends this process, whatever it does.

    A decoder that does not come to an end hears no exception and lets no other thread run. What
    counts is the processor's time, as a busy machine is no fault of the file; and `WAITING` times
    as much by the clock, for a disk that does not answer.
    """
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    signal.setitimer(signal.ITIMER_REAL, WAITING * limit_s)
    try:
        return read()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def read_each(
    read: Callable[[list[File]], list[Result]], files: list[File], limit_s: float
) -> list[Result]:
    """What `read` gives for each file, which may take `limit_s` each."""
    return [outcome for file in files for outcome in within(limit_s, partial(read, [file]))]


def read_files(files: list[SourceFile], reading: Reading) -> list[ReadImage | Refusal]:
    """Read each file; in place of one that cannot be used stands its `Refusal`."""
    outcomes: list[ReadImage | Refusal] = []
    for file in files:
        try:
            outcomes.append(read_file(file, reading))
        except Refusal as refusal:
            outcomes.append(refusal)
    return outcomes


def read_file(file: SourceFile, reading: Reading) -> ReadImage:
    """Read one file, keeping a copy of the original where it would not stay readable by its path.

    Copies are named by their content: no name from outside ever becomes a path.
    """
    if file.size_bytes == 0:
        raise Refusal(EMPTY, "The file is empty.")
    with _refusing(), _open_source(file, reading) as stream:
        head = stream.read(32)
        if head.startswith(b"PK\3\4") and file.path.lower().endswith(".zip"):
            raise Refusal(NOT_AN_IMAGE, ZIP_WITHIN)
        check_signature(head)
        if reading.zip_file is None and not reading.copy and is_storable(str(file.place)):
            return read_image(
                stream, str(file.place), reading.home, reading.max_megapixels, reading.prepare
            )
        incoming = reading.originals / f"incoming-{uuid.uuid4().hex}.part"
        try:
            _copy(head, stream, incoming)
            with incoming.open("rb") as copied:
                image = read_image(
                    copied, "", reading.home, reading.max_megapixels, reading.prepare
                )
            original = reading.originals / image.sha256[:2] / image.sha256
            original = original.with_suffix(EXTENSIONS[image.format])
            with writing(original):
                original.parent.mkdir(exist_ok=True)
                incoming.replace(original)
        finally:
            incoming.unlink(missing_ok=True)
        return replace(image, file=str(original))


def read_checksums(files: list[SourceFile], zip_file: Path | None) -> list[str | None]:
    """The SHA-256 of each file, as images have it; None for one that can't be read."""
    checksums: list[str | None] = []
    with nullcontext() if zip_file is None else zipfile.ZipFile(zip_file) as archive:
        for file in files:
            try:
                with _refusing(), _open_within(file, archive) as stream:
                    checksums.append(hashlib.file_digest(stream, "sha256").hexdigest())  # type: ignore[arg-type]
            except Refusal:
                checksums.append(None)
    return checksums


def read_bytes(data: bytes, home: Path, max_megapixels: float) -> ReadImage:
    """Read an image that is not a file of a source."""
    with _refusing():
        check_signature(data[:32])
        return read_image(io.BytesIO(data), "", home, max_megapixels)


def read_original(file: str, home: Path, max_megapixels: float) -> ReadImage:
    """Read an original again."""
    with _refusing(), open_file(file) as stream:
        check_signature(stream.read(32))
        return read_image(stream, file, home, max_megapixels)


def open_file(path: str) -> BinaryIO:
    """Open a file to read; what became a pipe or a device since it was listed has no end."""
    stream = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise Refusal(NOT_AN_IMAGE, NO_FILE)
    return stream


def check_signature(head: bytes) -> None:
    """Refuse what does not begin like one of the formats that are read; file names say nothing."""
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"mif1", b"msf1", b"avif"):
        raise Refusal(NOT_SUPPORTED, "HEIC and AVIF are not read: convert the file to JPEG.")
    if head[:4] == b"II*\0" and head[8:10] == b"CR":
        raise Refusal(NOT_SUPPORTED, "Raw camera files are not read: convert the file to JPEG.")
    if not head.startswith(SIGNATURES) and not (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        raise Refusal(NOT_AN_IMAGE, "It is not a JPEG, PNG, WebP, TIFF, GIF or BMP file.")


def read_image(
    stream: BinaryIO,
    file: str,
    home: Path,
    max_megapixels: float,
    prepare: Preparation | None = None,
) -> ReadImage:
    """Read header, metadata and hash of an image, decode it and write its thumbnails."""
    stamp = _stamp(stream)
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of oddities that it then copes with
        with PIL.Image.open(stream, formats=list(EXTENSIONS)) as opened:
            width, height = opened.size
            check_size(width, height, max_megapixels)
            if opened.format == "TIFF" and _is_preview(opened):
                raise Refusal(
                    NOT_SUPPORTED, "Raw camera files are not read: convert the file to JPEG."
                )
            orientation, metadata = read_metadata(opened)
            if orientation >= 5 and not _turns_itself(opened):
                width, height = height, width
            stream.seek(0)
            image = ReadImage(
                sha256=hashlib.file_digest(stream, "sha256").hexdigest(),  # type: ignore[arg-type]
                file=file,
                size_bytes=stream.seek(0, os.SEEK_END),
                format=_get_format(opened),
                width=width,
                height=height,
                orientation=orientation,
                metadata=metadata,
            )
            paths = [
                thumbnail_path(home, image.sha256, width, height, side) for side in THUMBNAIL_SIDES
            ]
            # Named by content: thumbnails that are there were made of these very bytes.
            if all(mark_kept(path) for path in paths):
                paths = []
            picture, pixels = None, None
            if prepare is not None:
                picture, pixels = _prepare(opened, stream, image, prepare, large=bool(paths))
            elif paths:
                picture = decode(opened, stream, orientation, choose_large(opened))
            if _stamp(stream) != stamp:  # then hash and pixels may be of two contents
                raise Refusal(NOT_READABLE, CHANGED)
            if picture is not None and paths:
                _write_thumbnails(picture, paths)
    return replace(image, pixels=pixels)


def decode_for(
    prepare: Preparation, opened: PIL.Image.Image, stream: BinaryIO, orientation: int
) -> tuple[PIL.Image.Image, Callable[[PIL.Image.Image], Pixels]]:
    """The picture as `decode` gives it, of a large JPEG a smaller one; and how to prepare it."""
    enough = max(SPARE_SCALE * prepare.resize_side, LEAST_DECODED)
    fitting = [by for by in REDUCTIONS if min(opened.size) >= by * enough]
    reduction = max(fitting) if fitting and is_jpeg(opened) else 1
    picture = decode(opened, stream, orientation, reduce_size(opened.size, reduction))
    return picture, prepare if reduction == 1 else prepare.nearly


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Refuse by the header what would take too much memory to decode."""
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise Refusal(
            TOO_LARGE,
            f"It has {width:,} × {height:,} pixels, {megapixels:,.0f} megapixels; the limit is "
            f"{max_megapixels:,.0f} (setting RAREFIND_MAX_MEGAPIXELS).",
        )


def read_metadata(opened: PIL.Image.Image) -> tuple[int, Metadata]:
    """The EXIF orientation and what the camera wrote; broken EXIF counts as none."""
    try:
        exif = opened.getexif()
        camera, gps = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
        orientation = exif.get(0x0112)
        make, model = exif.get(0x010F), exif.get(0x0110)
    except Exception:  # Pillow's parsers answer hostile bytes with nearly any error
        return 1, Metadata()
    latitude = _read_degrees(gps.get(2), gps.get(1), {"N": 1, "S": -1}, 90)
    longitude = _read_degrees(gps.get(4), gps.get(3), {"E": 1, "W": -1}, 180)
    if latitude is None or longitude is None or latitude == longitude == 0:
        latitude = longitude = None  # zero, zero is what receivers write before they have a fix
    return orientation if orientation in UPRIGHT else 1, Metadata(
        # The plain DateTime tag is left aside: editors set it to when they saved.
        captured_at=_read_time(camera.get(0x9003), camera.get(0x9291))
        or _read_time(camera.get(0x9004), camera.get(0x9292)),
        latitude=latitude,
        longitude=longitude,
        camera=_read_camera(make, model),
    )


def decode(
    opened: PIL.Image.Image, stream: BinaryIO, orientation: int, size: tuple[int, int]
) -> PIL.Image.Image:
    """The picture upright, in sRGB, on white; before it is turned upright it is of `size`."""
    profile = opened.info.get("icc_profile")
    pixels = None
    if is_jpeg(opened) and opened.mode == "RGB":
        pixels = _decode_jpeg(stream, opened.size, size)
    if pixels is None:
        opened.draft(None, size)
        opened.load()
        pixels = _to_eight_bits(opened)
    if pixels.size != size:
        pixels = pixels.resize(size, PIL.Image.Resampling.HAMMING)
    if pixels.mode == "RGBA":
        paper = PIL.Image.new("RGB", size, "white")
        paper.paste(pixels, mask=pixels)
        pixels = paper
    pixels = _to_srgb(pixels, profile)
    if orientation != 1 and not _turns_itself(opened):
        pixels = pixels.transpose(UPRIGHT[orientation])
    return pixels


def is_jpeg(opened: PIL.Image.Image) -> bool:
    """Whether it is a JPEG, of which smaller versions can be decoded directly."""
    return _get_format(opened) == "JPEG"


def reduce_size(size: tuple[int, int], by: int) -> tuple[int, int]:
    """What libjpeg gives when it decodes at one `by`-th."""
    return -(-size[0] // by), -(-size[1] // by)


def choose_large(opened: PIL.Image.Image) -> tuple[int, int]:
    """The size of the large thumbnail before it is turned upright."""
    side = THUMBNAIL_SIDES[-1]
    if is_jpeg(opened) and max(opened.size) > side:
        for by in REDUCTIONS:
            reduced = reduce_size(opened.size, by)
            if max(reduced) in NEAR_LARGE:
                return reduced
    scale = min(1.0, side / max(opened.size))
    return max(1, round(opened.width * scale)), max(1, round(opened.height * scale))


def make_small(pixels: PIL.Image.Image) -> PIL.Image.Image:
    """The small thumbnail of a large one, which may be changed by it."""
    by = round(max(pixels.size) / THUMBNAIL_SIDES[0])
    if max(reduce_size(pixels.size, by)) in NEAR_SMALL:
        return pixels.reduce(by)
    pixels.thumbnail((THUMBNAIL_SIDES[0],) * 2, PIL.Image.Resampling.HAMMING)
    return pixels


def thumbnail_path(home: Path, sha256: str, width: int, height: int, side: int) -> Path:
    """Where a thumbnail is; an image that fits the small one has no larger one."""
    if max(width, height) <= THUMBNAIL_SIDES[0]:
        side = THUMBNAIL_SIDES[0]
    return home / "thumbnails" / sha256[:2] / f"{sha256}-{side}.jpg"


def mark_kept(path: Path) -> bool:
    """Mark a file that is named by its content as just written; False if it is not there.

    Its row is on the way, and `rarefind gc` leaves it until then.
    """
    try:
        os.utime(path)
    except OSError:  # not there; or another person's, or on a disk that can only be read
        return path.exists()
    return True


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    # Of this writer alone: in a shared folder, other machines have the same numbers of processes.
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A full disk is no fault of the file being read: it stops the import with a sentence."""
    try:
        yield
    except OSError as error:
        raise RarefindError(
            f"Rarefind can't write to {path.parent}: {error.strerror}. Make room or set the "
            "rights, then run it again: what was imported so far is kept."
        ) from error


def is_storable(text: str) -> bool:
    """Whether the database can hold the text: names on a disk may be bytes that are no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()  # a killed import closes no queue: its workers would wait for ever
    os._exit(1)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn whatever hostile bytes make the decoders raise into a refusal."""
    try:
        yield
    except (Refusal, RarefindError):
        raise
    except MemoryError as error:
        raise Refusal(TOO_LARGE, NO_MEMORY) from error
    except PIL.UnidentifiedImageError as error:
        raise Refusal(DAMAGED, "It begins like an image, but its header makes no sense.") from error
    except OSError as error:
        if error.errno is not None:
            raise Refusal(NOT_READABLE, f"It can't be read: {error.strerror}.") from error
        raise Refusal(DAMAGED, _say_damaged(error)) from error
    except Exception as error:
        raise Refusal(DAMAGED, _say_damaged(error)) from error


def _say_damaged(error: Exception) -> str:
    return f"Its content is damaged or cut short ({_clean(error)})."


def _open_source(file: SourceFile, reading: Reading) -> BinaryIO:
    return _open_within(file, None if reading.zip_file is None else _open_zip(reading.zip_file))


def _open_within(file: SourceFile, archive: zipfile.ZipFile | None) -> BinaryIO:
    if archive is None:
        return open_file(str(file.place))
    return cast(BinaryIO, archive.open(archive.infolist()[int(file.place)]))


@lru_cache(maxsize=1)
def _open_zip(path: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)  # open as long as the worker lives: listing it takes a while


def _copy(head: bytes, stream: BinaryIO, target: Path) -> None:
    """Stream to `target`; zipfile itself gives no more bytes than the entry's header declares."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        copied = target.open("wb")
    try:
        chunk = head
        while chunk:
            with writing(target):
                copied.write(chunk)
            chunk = stream.read(1 << 20)
    finally:
        with writing(target):  # what is still buffered meets a full disk only here
            copied.close()


def _stamp(stream: BinaryIO) -> Stamp | None:
    """What tells whether a file was written to; None for what is in memory."""
    try:
        status = os.fstat(stream.fileno())
    except io.UnsupportedOperation:
        return None
    return status.st_size, status.st_mtime_ns


def _is_preview(opened: PIL.Image.Image) -> bool:
    """Whether a TIFF's first picture calls itself reduced, as in NEF, DNG and ARW files."""
    kind = cast(Any, opened).tag_v2.get(254, 0)
    return isinstance(kind, int) and bool(kind & 1)


def _turns_itself(opened: PIL.Image.Image) -> bool:
    """Pillow gives the size of a TIFF, and loads it, with its orientation applied."""
    return opened.format == "TIFF"


def _get_format(opened: PIL.Image.Image) -> str:
    # Cameras append previews to a JPEG, which makes it an MPO to Pillow.
    return "JPEG" if opened.format == "MPO" else str(opened.format)


def _read_time(value: Any, fraction: Any) -> datetime | None:
    text = _clean(value)
    if not text:
        return None
    try:
        moment = datetime.strptime(text[:10].translate(_TO_COLON) + text[10:19], _EXIF_TIME)
    except ValueError:
        return None
    if moment.year not in YEARS:
        return None
    digits = _clean(fraction)
    if digits.isdecimal() and digits.isascii():
        moment = moment.replace(microsecond=int(digits[:6].ljust(6, "0")))
    return moment


# A clock that was never set says 1970 or so; what is far from it is no time, and where a shift is
# added to it, or a day, it may be one that no computer can hold.
YEARS = range(1900, 2200)
_EXIF_TIME = "%Y:%m:%d %H:%M:%S"
_TO_COLON = str.maketrans("-/.", ":::")  # the standard says colons; not every camera read it


def _read_degrees(value: Any, reference: Any, signs: dict[str, int], limit: int) -> float | None:
    """Signed degrees from degrees, minutes and seconds; None unless everything makes sense."""
    try:
        degrees, minutes, seconds = (float(part) for part in value)
        sign = signs[_clean(reference).upper()]
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        return None
    total = degrees + minutes / 60 + seconds / 3600
    return sign * total if math.isfinite(total) and 0 <= total <= limit else None


def _read_camera(make: Any, model: Any) -> str | None:
    make, model = _clean(make), _clean(model)
    if make and model.lower().startswith(make.split()[0].lower()):
        make = ""  # "Canon", "Canon EOS 40D"
    return f"{make} {model}".strip()[:200] or None


def _clean(value: Any) -> str:
    """Text that a page and the database can hold: no control characters, no half letters."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    text = "" if value is None else str(value)
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _prepare(
    opened: PIL.Image.Image,
    stream: BinaryIO,
    image: ReadImage,
    prepare: Preparation,
    *,
    large: bool,
) -> tuple[PIL.Image.Image, Pixels | None]:
    """The picture, in the size of the large thumbnail where asked for, and prepared.

    If what is decoded to prepare it is large enough, it serves both.
    """
    size = choose_large(opened)
    if image.orientation >= 5 and not _turns_itself(opened):
        size = size[::-1]
    picture, make_pixels = decode_for(prepare, opened, stream, image.orientation)
    pixels = None
    with suppress(Exception):
        pixels = make_pixels(picture)
    if large:
        if picture.width < size[0] or picture.height < size[1]:
            with PIL.Image.open(stream, formats=list(EXTENSIONS)) as again:
                picture = decode(again, stream, image.orientation, choose_large(again))
        elif picture.size != size:
            picture = picture.resize(size, PIL.Image.Resampling.HAMMING)
    return picture, pixels


def _decode_jpeg(
    stream: BinaryIO, full: tuple[int, int], size: tuple[int, int]
) -> PIL.Image.Image | None:
    """Decode at the smallest of the library's quick scales that is large enough.

    None when the bytes are odd in any way: then Pillow judges whether they will do.
    """
    enough = [
        by
        for by in REDUCTIONS
        if all(have >= want for have, want in zip(reduce_size(full, by), size, strict=True))
    ]
    width, height = reduce_size(full, max(enough, default=1))
    stream.seek(0)
    try:
        pixels = simplejpeg.decode_jpeg(stream.read(), "RGB", min_height=height, min_width=width)
    except ValueError:
        return None
    return PIL.Image.fromarray(pixels)


def _to_eight_bits(opened: PIL.Image.Image) -> PIL.Image.Image:
    """The loaded picture as L, RGB, RGBA or CMYK."""
    if opened.mode.startswith("I;16"):
        return opened.point(lambda value: value * (1 / 256)).convert("L")
    if opened.mode in ("I", "F"):  # no range is agreed: from the darkest to the brightest
        low, high = cast(tuple[float, float], opened.getextrema())
        scale = 255 / (high - low) if high > low else 0.0
        return opened.point(lambda value: value * scale - low * scale).convert("L")
    if opened.has_transparency_data:
        return opened.convert("RGBA")
    if opened.mode in ("L", "RGB", "CMYK"):
        return opened
    return opened.convert("L" if opened.mode == "1" else "RGB")


def _to_srgb(pixels: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    transform = _make_transform(profile, pixels.mode) if profile else None
    if transform is None:
        return pixels.convert("RGB")
    converted = ImageCms.applyTransform(pixels, transform)
    assert converted is not None  # noqa: S101 - it is None only when converting in place  # nosec B101
    return converted


@lru_cache(maxsize=8)
def _make_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the picture's colours to sRGB; None when they are that already, or can't be told."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return None


def _write_thumbnails(pixels: PIL.Image.Image, paths: list[Path]) -> None:
    """Write the large thumbnail, then the small one of it; one file when both are the same."""
    small, large = paths
    if large != small:
        write_whole(large, _encode(pixels))
        pixels = make_small(pixels)
    # Small originals are crops, shown enlarged: there full colour resolution costs little.
    write_whole(small, _encode(pixels, subsampling=2 if large != small else 0))


def _encode(pixels: PIL.Image.Image, subsampling: int = 2) -> bytes:
    pixels.info = {}  # else comments would be written again
    encoded = io.BytesIO()
    pixels.save(encoded, "JPEG", quality=THUMBNAIL_QUALITY, subsampling=subsampling)
    return encoded.getvalue()
