"""Files that mean harm, or were harmed: made by a seed, all different.

Each kind is a maker of bytes. What must become of a file is part of it: `GOOD` ones must be
imported, `BAD` ones refused with a reason; of the others either will do.
"""

import csv
import functools
import io
import os
import random
import socket
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import PIL.TiffImagePlugin

GOOD, BAD, EITHER = "good", "bad", "either"
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")
ENDINGS = dict(zip(FORMATS, ("jpg", "png", "gif", "webp", "tif", "bmp"), strict=True))
HUGE = 65_535

Draw = random.Random


@dataclass(frozen=True)
class HostileFile:
    """One file: its name as bytes, its content, what kind it is, what must become of it."""

    name: bytes
    data: bytes
    kind: str
    fate: str


def make_hostile_files(seed: int, count: int) -> list[HostileFile]:
    """So many files, of every kind in turn, and never the same bytes or the same name twice."""
    kinds = list(KINDS)
    files: list[HostileFile] = []
    contents: set[bytes] = set()
    for number in range(count):
        kind = kinds[number % len(kinds)]
        draw = random.Random(f"{seed} {number}")
        name, data, fate = KINDS[kind](draw)
        while data in contents:
            name, data, fate = KINDS[kind](draw)
        contents.add(data)
        # In folders of their own: names may be what they like.
        files.append(HostileFile(b"%04d/%s" % (number, name), data, kind, fate))
    return files


# --- Pieces -------------------------------------------------------------------------------------


def make_image(draw: Draw, file_format: str = "JPEG", size=(24, 16), **options) -> bytes:
    """A small picture of noise."""
    picture = PIL.Image.frombytes("RGB", size, draw.randbytes(size[0] * size[1] * 3))
    if file_format == "GIF":
        picture = picture.quantize(64)
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def insert_chunks(png: bytes, *chunks: bytes) -> bytes:
    """A PNG with more chunks after its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def segment(marker: int, data: bytes) -> bytes:
    """A segment of a JPEG."""
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def insert_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """A JPEG with more segments at its beginning."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def directory(entries: Iterable[tuple[int, int, int, bytes]], following: int = 0) -> bytes:
    """A directory of TIFF tags: tag, type, count, four bytes of value or offset."""
    entries = list(entries)
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


def with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    """A JPEG with this as its EXIF."""
    return insert_segments(jpeg, segment(0xE1, b"Exif\0\0" + tiff))


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP of these chunks."""
    body = b"WEBP" + b"".join(
        kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
        for kind, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


@functools.cache
def deflated_zeros(count: int) -> bytes:
    """So many zeros, deflated."""
    deflate = zlib.compressobj(9)
    head = deflate.compress(b"") + deflate.flush(zlib.Z_FULL_FLUSH)
    piece = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    last = zlib.compressobj(9, wbits=-15)
    rest = last.compress(bytes(count % (1 << 20))) + last.flush()
    return head + piece * (count >> 20) + rest + struct.pack(">I", count % 65_521 << 16 | 1)


@functools.cache
def bilevel_png(side: int) -> bytes:
    """A black square of one bit a pixel: real, and tiny on the disk."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    body = deflated_zeros((-(-side // 8) + 1) * side)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# --- Single files: (name, content, fate) --------------------------------------------------------

Made = tuple[bytes, bytes, str]


def is_cut_short(draw: Draw) -> Made:
    file_format = draw.choice(FORMATS)
    data = make_image(draw, file_format)
    cut = data[: draw.randint(4, len(data) - 8)]
    return b"cut." + ENDINGS[file_format].encode(), cut, EITHER


def has_flipped_bytes(draw: Draw) -> Made:
    file_format = draw.choice(FORMATS)
    data = bytearray(make_image(draw, file_format))
    for _ in range(draw.randint(1, 40)):
        data[draw.randrange(12, len(data))] = draw.randrange(256)
    return b"flipped." + ENDINGS[file_format].encode(), bytes(data), EITHER


def has_garbled_beginning(draw: Draw) -> Made:
    file_format = draw.choice(FORMATS)
    data = make_image(draw, file_format)
    return b"head." + ENDINGS[file_format].encode(), data[:12] + draw.randbytes(300), EITHER


def says_it_is_huge(draw: Draw) -> Made:
    """65,535 x 65,535 pixels by its header, and a small body."""
    file_format = draw.choice(FORMATS)
    return b"huge." + ENDINGS[file_format].encode(), resize_header(draw, file_format, HUGE), BAD


def says_it_is_larger(draw: Draw) -> Made:
    """A header within the limits, and a body that is far too short for it."""
    file_format = draw.choice(FORMATS)
    data = resize_header(draw, file_format, draw.randint(2_000, 8_000))
    return b"larger." + ENDINGS[file_format].encode(), data, EITHER


def resize_header(draw: Draw, file_format: str, side: int) -> bytes:
    """A small picture whose header says that it is a square of this side."""
    data = bytearray(make_image(draw, file_format))
    if file_format == "JPEG":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", side, side)
    elif file_format == "PNG":
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif file_format == "GIF":
        data[6:10] = struct.pack("<HH", side, side)
    elif file_format == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    elif file_format == "WEBP":
        extended = struct.pack("<I", 0) + (struct.pack("<I", side - 1)[:3]) * 2
        return riff((b"VP8X", extended), (b"VP8 ", bytes(data[20:])))
    else:
        strip = struct.pack("<I", 8)
        values = ((256, side), (257, side), (258, 8), (259, 1), (262, 1), (277, 1), (278, side))
        entries = [(tag, 4, 1, struct.pack("<I", value)) for tag, value in values]
        entries += [(273, 4, 1, strip), (279, 4, 1, struct.pack("<I", side * side % 2**32))]
        tail = directory(sorted(entries))
        noise = draw.randbytes(64)
        return b"II*\0" + struct.pack("<I", 8 + len(noise)) + noise + tail
    return bytes(data)


def is_really_huge(draw: Draw) -> Made:
    """65,535 x 65,535 pixels that are there, packed to half a megabyte or less."""
    mark = draw.randbytes(8)
    if draw.random() < 0.5:
        return b"flood.png", insert_chunks(bilevel_png(HUGE), chunk(b"noTe", mark)), BAD
    body = deflated_zeros(-(-HUGE // 8) * HUGE)
    values = ((256, HUGE), (257, HUGE), (258, 1), (259, 8), (262, 1), (273, 16), (277, 1))
    values += ((278, HUGE), (279, len(body)))
    entries = [(tag, 4, 1, struct.pack("<I", value)) for tag, value in values]
    return (
        b"flood.tif",
        b"II*\0" + struct.pack("<I", 16 + len(body)) + mark + body + directory(entries),
        BAD,
    )


def is_as_large_as_allowed(draw: Draw) -> Made:
    """98 megapixels in a file of 12 KB."""
    return b"large.png", insert_chunks(bilevel_png(9_900), chunk(b"noTe", draw.randbytes(8))), GOOD


def ends_early(draw: Draw) -> Made:
    """A BMP in runs, huge by its header, whose first code says that it ends."""
    header = struct.pack("<IiiHHIIiiII", 40, HUGE, HUGE, 1, 8, 1, 2, 0, 0, 256, 0)
    palette = draw.randbytes(1024)
    size = 14 + len(header) + len(palette) + 2
    return (
        b"runs.bmp",
        b"BM" + struct.pack("<IHHI", size, 0, 0, size - 2) + header + palette + b"\0\1",
        BAD,
    )


def has_100_000_frames(draw: Draw) -> Made:
    frames = 100_000
    kind = draw.choice(("GIF", "PNG", "WEBP", "TIFF"))
    mark = draw.randbytes(8)
    if kind == "GIF":
        head = b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
        frame = b"," + struct.pack("<HHHHB", 0, 0, 2, 2, 0) + b"\2\2\4\1\0"
        return b"frames.gif", head + b"!\xfe\x08" + mark + b"\0" + frame * frames + b";", EITHER
    if kind == "PNG":
        png = make_image(draw, "PNG", (4, 4))
        control = chunk(b"acTL", struct.pack(">II", frames, 0))
        later = b"".join(
            chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 1, 1, 0, 0, 1, 1, 0, 0))
            for number in range(frames)
        )
        return b"frames.png", png[:33] + control + png[33:-12] + later + png[-12:], EITHER
    if kind == "WEBP":
        file = make_image(draw, "WEBP", (4, 4), lossless=True)
        place = struct.pack("<I", 0)[:3]
        side = struct.pack("<I", 3)[:3]
        inner = file[12:] + b"\0" * (len(file) % 2)
        frame = place * 2 + side * 2 + struct.pack("<I", 9)[:3] + b"\0" + inner
        packed = b"ANMF" + struct.pack("<I", len(frame)) + frame + b"\0" * (len(frame) % 2)
        extended = struct.pack("<I", 2) + side * 2
        start = riff((b"VP8X", extended), (b"ANIM", bytes(6)))
        body = start[8:] + packed * (frames // 10)
        return b"frames.webp", b"RIFF" + struct.pack("<I", len(body)) + body, EITHER
    tiff = bytearray(make_image(draw, "TIFF", (4, 4)))
    (first,) = struct.unpack("<I", tiff[4:8])
    (tags,) = struct.unpack("<H", tiff[first : first + 2])
    at_next = first + 2 + 12 * tags
    picture = bytes(tiff[first + 2 : at_next])
    tiff[at_next : at_next + 4] = struct.pack("<I", len(tiff))
    size = 2 + len(picture) + 4
    start = len(tiff)
    more = b"".join(
        struct.pack("<H", tags) + picture + struct.pack("<I", start + (number + 1) * size)
        for number in range(frames // 10)
    )
    return b"frames.tif", bytes(tiff) + more, GOOD


def has_giant_text(draw: Draw) -> Made:
    """A PNG with text, or a profile, that unpacks to 200 MB."""
    packed = deflated_zeros(200_000_000)
    given = draw.choice(
        (
            chunk(b"zTXt", b"Comment\0\0" + packed),
            chunk(b"iCCP", b"sRGB\0\0" + packed),
            chunk(b"iTXt", b"Comment\0\1\0en\0\0" + packed),
            b"".join(chunk(b"tEXt", b"k%d\0v" % number) for number in range(20_000)),
            chunk(b"eXIf", b"II*\0" + draw.randbytes(3_000_000)),
        )
    )
    return b"text.png", insert_chunks(make_image(draw, "PNG"), given), EITHER


def has_giant_metadata(draw: Draw) -> Made:
    """A JPEG with 10 MB or so of EXIF, of a profile, or of XMP."""
    noise = draw.randbytes(60_000)
    kind = draw.choice(("exif", "icc", "xmp"))
    if kind == "exif":
        segments = [segment(0xE1, b"Exif\0\0" + noise)] * 150
    elif kind == "icc":
        parts = range(1, 256)
        segments = [segment(0xE2, b"ICC_PROFILE\0" + bytes((n, 255)) + noise) for n in parts]
    else:
        name = b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32
        segments = [
            segment(0xE1, name + struct.pack(">II", 10**7, 60_000 * n) + noise) for n in range(150)
        ]
    return kind.encode() + b".jpg", insert_segments(make_image(draw), *segments), EITHER


def has_exif_in_circles(draw: Draw) -> Made:
    """Directories that point at themselves, or out of the file, or promise gigabytes."""
    pointer = struct.pack("<I", 8)
    most = struct.pack("<I", 0xFFFFFFF0)
    circles = (
        directory([(0x0112, 3, 1, bytes(4))], following=8),
        directory([(0x8769, 4, 1, pointer), (0x8825, 4, 1, pointer)]),
        directory([(0x8769, 4, 1, most), (0x8825, 4, 1, most)]),
        directory([(0x010F, 2, 0xFFFFFFFF, pointer), (0x0110, 2, 0x7FFFFFFF, most)]),
        directory([(0x8769, 2, 40, pointer), (0x8825, 5, 9, pointer)]),
        directory([(0x8769, 4, 1, pointer)] * 4_000, following=8),
        directory([(0x0112, kind, 0xFFFF, pointer) for kind in range(20)]),
    )
    tiff = b"II*\0" + struct.pack("<I", 8) + draw.choice(circles) + draw.randbytes(20)
    return b"circles.jpg", with_exif(make_image(draw), tiff), GOOD


def has_odd_times_and_places(draw: Draw) -> Made:
    exif = PIL.Image.Exif()
    times = ("0000:00:00 00:00:00", "9999:12:31 23:59:59", "0001:01:01 00:00:00", "9" * 60_000)
    times += ("2024:02:30 25:61:61", "\0" * 19, "٢٠٢٤:٠١:٠١ ٠٠:٠٠:٠٠", "-001:01:01 00:00:00")
    exif.get_ifd(0x8769)[0x9003] = draw.choice(times)
    zero = PIL.TiffImagePlugin.IFDRational(draw.randint(0, 9), 0)
    far = PIL.TiffImagePlugin.IFDRational(4_294_967_295, 1)
    places = exif.get_ifd(0x8825)
    places[1], places[3] = draw.choice(("N", "S", "\0", "N\0N")), draw.choice(("E", "W", "", "Q"))
    places[2], places[4] = ((draw.choice((zero, far)),) * draw.randint(1, 3) for _ in range(2))
    exif[0x010F] = draw.choice(("\x1b[31m", "=cmd|' /C calc'!A0", "<script>alert(1)</script>"))
    exif[0x0112] = draw.choice((0, 9, 255, 65_535))
    return b"odd.jpg", make_image(draw, exif=exif), GOOD


SCRIPT = b"<script>alert(1)</script>"


def is_two_things_at_once(draw: Draw) -> Made:
    jpeg, mark = make_image(draw), draw.randbytes(8).hex().encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../evil.sh", b"rm -rf / #" + mark)
    png = make_image(draw, "PNG")
    return draw.choice(
        (
            (b"zip.jpg", jpeg + packed.getvalue(), GOOD),
            (b"zip-first.jpg", packed.getvalue() + jpeg, BAD),
            (b"html.jpg", insert_segments(jpeg, segment(0xFE, SCRIPT)), GOOD),
            (b"html-first.png", SCRIPT + mark + png, BAD),
            (b"html.png", insert_chunks(png, chunk(b"tEXt", b"Title\0" + SCRIPT)), GOOD),
            (b"pdf.jpg", b"%PDF-1.4\n%" + mark + b"\n" + jpeg, BAD),
            (b"js.gif", b"GIF89a/*" + mark + b"*/=1;alert(1)//", EITHER),
            (b"bat.bmp", b"BM 2>nul & calc " + mark, EITHER),
            (b"php.jpg", jpeg + b"<?php system($_GET['c']); ?>" + mark, GOOD),
            (b"two.jpg", jpeg + make_image(draw), GOOD),
        )
    )


def is_no_picture(draw: Draw) -> Made:
    """Something else, called .jpg."""
    mark = draw.randbytes(8).hex().encode()
    more = (b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 12))
    entities = b'<!DOCTYPE l [<!ENTITY l0 "%s">' + b"".join(more) + b"]>"
    return draw.choice(
        (
            b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><!-- %s --></svg>',
            b'<?xml version="1.0"?>' + entities + b"<svg>&l11;</svg>",
            b"<!doctype html>%s" + SCRIPT,
            b"\x7fELF\2\1\1%s",
            b"MZ%s",
            b"#!/bin/sh\necho %s",
            b"%%!PS-Adobe-3.0 EPSF-3.0\n%%%%%s\n(/etc/passwd) (r) file",
            b"%%PDF-1.7 %s",
            b"\0\0\0\x18ftypheic%s",
            b"\0\0\0\x18ftypavif%s",
            b"\0\0\0\x18ftypmp42%s",
            b"\0\0\1\0%s",
            b"8BPS\0\1%s",
            b"\x0a\x05\x01\x08%s",
            b"\0\0\0\x0cjP  \r\n\x87\n%s",
            b"SQLite format 3\0%s",
            b"push graphic-context\nfill 'url(https://x/\"|ls \"-la)'\n%s",
            b"\xff\xd8%s",
            b"\x89PNG\n%s",
            b"RIFF\xff\xff\xff\xffWAVE%s",
        )
    ) % mark, BAD


def is_named_jpg(draw: Draw) -> Made:
    data, fate = is_no_picture(draw)
    return b"picture.jpg", data, fate


ODD_NAMES = (
    *("صورة.jpg", "תמונה.jpg", "ภาพ.jpg", "चित्र.jpg", "图像.jpg", "画像.jpg", "그림.jpg"),
    *("სურათი.jpg", "Фото.jpg", "φωτο.jpg", "ፎቶ.jpg", "𓃠.jpg", "🦎🐸.jpg", "cafe\u0301.jpg"),
    *("caf\u00e9.jpg", "Z\u0351\u036b\u0343a\u0327lgo.jpg", "＝１＋１.jpg", "a\u202egpj.exe"),
    *("\u2066x\u2069.jpg", "\ufeffbom.jpg", "zero\u200bwidth.jpg", "line\u2028break.jpg"),
    *("i\u0307I\u0131.jpg", "new\nline.jpg", "tab\there.jpg", "return\rhere.jpg", "bell\a.jpg"),
    *("esc\x1b[31m.jpg", "\x01\x02\x03.jpg", "del\x7f.jpg", "it's.jpg", 'say "x".jpg', "`id`.jpg"),
    *("$(id).jpg", "a;b&c|d.jpg", "*.jpg", "?.jpg", "<img src=x onerror=alert(1)>.jpg"),
    *("&amp;.jpg", "{{7*7}}.jpg", "%s%n%x.jpg", "%00.jpg", "%2e%2e%2f.jpg", "-rf.jpg", "--help"),
    *("-", "dot.jpg.", "space.jpg ", " lead.jpg", "..\\..\\up.jpg", "C:\\x.jpg", "C:x.jpg"),
    *("\\\\h\\s\\x.jpg", "con", "NUL.jpg", "aux.jpg", "COM1.jpg", "lpt9", "a:b.jpg"),
    *("x" * 251 + ".jpg", "ä" * 125 + ".jpg", "=cmd|' \\C calc'!A0.jpg", "+1+1.jpg", "-2+3.jpg"),
    *("@SUM(1).jpg", "\t=1.jpg", "#REF!.jpg", "'; DROP TABLE images; --.jpg", "~root", "a,b.jpg"),
    *("no ending", "~$x.jpg"),
)
NAMES = (
    *(name.encode() for name in ODD_NAMES),
    *(b"\xff\xfe.jpg", b"caf\xe9.jpg", b"\xc0\xaf.jpg", b"\xed\xa0\x80.jpg", b"\xf5\x80.jpg"),
)


def has_an_odd_name(draw: Draw) -> Made:
    return draw.choice(NAMES), make_image(draw), GOOD


def is_fine(draw: Draw) -> Made:
    """A good one, among all these."""
    file_format = draw.choice(FORMATS)
    return b"fine." + ENDINGS[file_format].encode(), make_image(draw, file_format), GOOD


KINDS: dict[str, Callable[[Draw], Made]] = {
    kind.__name__: kind
    for kind in (
        is_cut_short,
        has_an_odd_name,
        has_flipped_bytes,
        says_it_is_huge,
        has_exif_in_circles,
        is_named_jpg,
        says_it_is_larger,
        is_two_things_at_once,
        has_odd_times_and_places,
        has_garbled_beginning,
        has_an_odd_name,
        is_fine,
        ends_early,
    )
}
# Large ones: a few of each will do.
HEAVY = (
    is_really_huge,
    is_as_large_as_allowed,
    has_100_000_frames,
    has_giant_text,
    has_giant_metadata,
)


def make_heavy_files(seed: int, count: int) -> list[HostileFile]:
    """So many of those that take long to make or to read."""
    files = []
    for number in range(count):
        kind = HEAVY[number % len(HEAVY)]
        name, data, fate = kind(random.Random(f"heavy {seed} {number}"))
        files.append(HostileFile(b"heavy%04d/%s" % (number, name), data, kind.__name__, fate))
    return files


# --- Zips ---------------------------------------------------------------------------------------

Entry = tuple[str | zipfile.ZipInfo, bytes]


def pack(*entries: Entry, compression: int = zipfile.ZIP_DEFLATED) -> bytearray:
    """A zip of these."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return bytearray(file.getvalue())


def patch(data: bytearray, signature: bytes, offset: int, form: str, *values: int) -> bytearray:
    """Write over the fields at `offset` of every header of a kind."""
    at = data.find(signature)
    while at >= 0:
        struct.pack_into(form, data, at + offset, *values)
        at = data.find(signature, at + 4)
    return data


LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"


def make_hostile_zips(seed: int, count: int) -> list[HostileFile]:
    """So many zips, of each kind in turn; a good one is one whose `fine.jpg` must come in."""
    makers = (
        bomb, bomb_in_bombs, bomb_of_overlaps, many_entries, slips, links, encrypted, rare_method,
        wrong_sizes, wrong_checksum, wrong_offsets, cut_off, no_zip, odd_names, long_names,
        same_names, beyond_64_bits, folders_with_content,
    )  # fmt: skip
    zips = []
    for number in range(count):
        draw = random.Random(f"zip {seed} {number}")
        maker = makers[number % len(makers)]
        data, fate = maker(draw)
        name = b"%04d-%s.zip" % (number, maker.__name__.encode())
        zips.append(HostileFile(name, bytes(data), maker.__name__, fate))
    return zips


def fine(draw: Draw) -> Entry:
    return "fine.jpg", make_image(draw)


def odd(draw: Draw) -> tuple[str, bytes]:
    """An entry of a name that no other has."""
    return f"odd-{draw.randrange(10**12)}.jpg", make_image(draw)


def bomb(draw: Draw) -> tuple[bytearray, str]:
    side = draw.randint(20_000_000, 60_000_000)
    return pack(("bomb.jpg", bytes(side)), fine(draw)), GOOD


def bomb_in_bombs(draw: Draw) -> tuple[bytearray, str]:
    inner = bytes(pack(("bomb.jpg", bytes(10_000_000)), fine(draw)))
    for number in range(5):
        inner = bytes(pack(*((f"{number}-{copy}.zip", inner) for copy in range(3)), fine(draw)))
    return bytearray(inner), GOOD


def bomb_of_overlaps(draw: Draw) -> tuple[bytearray, str]:
    """A thousand entries that all unpack the same bytes."""
    data = pack((odd(draw)[0], make_image(draw, size=(200, 200))))
    at = data.find(CENTRAL)
    end = data.find(END)
    entry = data[at:end]
    count = 1_000
    tail = bytearray(data[end:])
    struct.pack_into("<HHII", tail, 8, count, count, len(entry) * count, at)
    return data[:at] + entry * count + tail, BAD


def many_entries(draw: Draw) -> tuple[bytearray, str]:
    names = [f"{draw.randrange(10**9)}-{number}.jpg" for number in range(300)]
    return pack(*((name, b"") for name in names), fine(draw)), GOOD


def slips(draw: Draw) -> tuple[bytearray, str]:
    names = ("../../up.jpg", "/etc/abs.jpg", "C:/drive.jpg", "..\\..\\up.jpg", "a/../../b.jpg")
    return pack(*((name, make_image(draw)) for name in names), fine(draw)), GOOD


def links(draw: Draw) -> tuple[bytearray, str]:
    entries: list[Entry] = []
    for name, mode in (("link", stat.S_IFLNK), ("device", stat.S_IFBLK), ("pipe", stat.S_IFIFO)):
        info = zipfile.ZipInfo(f"{name}.jpg")
        info.create_system, info.external_attr = 3, (mode | 0o777) << 16
        entries.append((info, b"/etc/passwd" + draw.randbytes(4)))
    return pack(*entries, fine(draw)), GOOD


def encrypted(draw: Draw) -> tuple[bytearray, str]:
    data = pack(odd(draw))
    return patch(patch(data, LOCAL, 6, "<H", 1), CENTRAL, 8, "<H", 1), BAD


def rare_method(draw: Draw) -> tuple[bytearray, str]:
    method = draw.choice((zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2))
    return pack(odd(draw), compression=method), BAD


def wrong_sizes(draw: Draw) -> tuple[bytearray, str]:
    size = draw.choice((1, 10, 0x7FFFFFFF, 0xFFFFFFFE))
    return patch(pack(odd(draw)), CENTRAL, 24, "<I", size), EITHER


def wrong_checksum(draw: Draw) -> tuple[bytearray, str]:
    return patch(pack(odd(draw)), CENTRAL, 16, "<I", draw.randrange(9)), BAD


def wrong_offsets(draw: Draw) -> tuple[bytearray, str]:
    data = pack(odd(draw))
    return patch(data, CENTRAL, 42, "<I", draw.choice((7, 0x7FFFFFFF, len(data)))), BAD


def cut_off(draw: Draw) -> tuple[bytearray, str]:
    data = pack(("a.jpg", make_image(draw)), ("b.jpg", make_image(draw)))
    return data[: draw.randrange(100, len(data) - 30)], BAD


def no_zip(draw: Draw) -> tuple[bytearray, str]:
    """No zip at all, the end of one, or one whose list of contents is noise."""
    data = pack(("a.jpg", make_image(draw)))
    at, end = data.find(CENTRAL), data.find(END)
    unlisted = data[:at] + draw.randbytes(end - at) + data[end:]
    return draw.choice((bytearray(draw.randbytes(99)), data[end:], unlisted)), BAD


def odd_names(draw: Draw) -> tuple[bytearray, str]:
    names = draw.sample(NAMES, 12)
    shown = [name.decode(errors="replace") for name in names]
    return pack(
        *((f"{n}{name}", make_image(draw)) for n, name in enumerate(shown)), fine(draw)
    ), GOOD


def long_names(draw: Draw) -> tuple[bytearray, str]:
    """Names that no file system and no index of a database holds."""
    letters = "".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(20_000))
    deep = "/".join(letters[at : at + 40] for at in range(0, 20_000, 40))
    return pack(
        (f"{letters}.jpg", make_image(draw)), (f"{deep}.jpg", b"no picture"), fine(draw)
    ), GOOD


def same_names(draw: Draw) -> tuple[bytearray, str]:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        infos = [zipfile.ZipInfo("same.jpg") for _ in range(20)]
        for info in infos:
            archive.NameToInfo.clear()  # else it warns of each
            archive.writestr(info, make_image(draw))
        archive.writestr(*fine(draw))
    return bytearray(file.getvalue()), GOOD


def beyond_64_bits(draw: Draw) -> tuple[bytearray, str]:
    """An entry that says by its 64-bit fields that it has exabytes."""
    info = zipfile.ZipInfo(odd(draw)[0])
    info.extra = struct.pack("<HHQQ", 1, 16, draw.randrange(2**62), 2**62)
    data = pack((info, make_image(draw)))
    return patch(data, CENTRAL, 20, "<II", 0xFFFFFFFF, 0xFFFFFFFF), BAD


def folders_with_content(draw: Draw) -> tuple[bytearray, str]:
    return pack(("folder.jpg/", make_image(draw)), ("a/b/", b"x"), fine(draw)), GOOD


# --- Tables -------------------------------------------------------------------------------------

FORMULAS = (
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(1)",
    "\t=1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://x")',
)


def make_hostile_tables(seed: int, count: int) -> list[HostileFile]:
    """So many CSV files with a column file; a good one must be taken, a bad one refused."""
    makers = (
        formulas, nuls, ragged_rows, many_columns, giant_cells, wrong_encoding, long_column_names,
        odd_numbers, open_quote, many_rows, no_table, odd_columns,
    )  # fmt: skip
    tables = []
    for number in range(count):
        draw = random.Random(f"table {seed} {number}")
        maker = makers[number % len(makers)]
        data, fate = maker(draw)
        data += b"\r\n" * (number // len(makers))  # all different
        name = b"%04d-%s.csv" % (number, maker.__name__.encode())
        tables.append(HostileFile(name, data, maker.__name__, fate))
    return tables


def formulas(draw: Draw) -> tuple[bytes, str]:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(("file", draw.choice(("note", "=cmd()", "@x"))))
    writer.writerows((f"{number}.jpg", text) for number, text in enumerate(FORMULAS))
    return file.getvalue().encode(), GOOD


def nuls(draw: Draw) -> tuple[bytes, str]:
    return b"file,no\0te\n1.jpg,a\0b\n2\0.jpg,c\n\0\n%d.jpg" % draw.randrange(10**9), EITHER


def ragged_rows(draw: Draw) -> tuple[bytes, str]:
    rows = ["1.jpg" + "," * draw.randrange(300) + "x" for _ in range(50)]
    return ("file,note\n\n" + "\n".join(rows)).encode(), BAD


def many_columns(draw: Draw) -> tuple[bytes, str]:
    names = ",".join(f"c{number}" for number in range(100_000))
    return f"{draw.choice(('file', 'name'))},{names}\n1.jpg,{',' * 100_000}\n".encode(), BAD


def giant_cells(draw: Draw) -> tuple[bytes, str]:
    return b"file,note\n1.jpg," + b"x" * draw.randint(3_000_000, 6_000_000) + b"\n", BAD


def wrong_encoding(draw: Draw) -> tuple[bytes, str]:
    text = "file,note\n1.jpg,déjà vu ☃\n"
    encoding = draw.choice(("utf-16", "utf-16-le", "utf-32", "utf-7", "shift_jis", "cp037"))
    return text.encode(encoding, errors="ignore") + draw.randbytes(3), EITHER


def long_column_names(draw: Draw) -> tuple[bytes, str]:
    letters = "".join(chr(draw.randrange(0x4E00, 0x9FFF)) for _ in range(30_000))
    return f"file,{letters}\n1.jpg,x\n".encode(), EITHER


def odd_numbers(draw: Draw) -> tuple[bytes, str]:
    numbers = ("1" + "0" * 400, "1e99", "-0", "NaN", "Infinity", "1e-99", "9" * 5_000, "٣")
    rows = [f"{n}.jpg,{draw.choice(numbers)},{number}" for n, number in enumerate(numbers)]
    return ("file,a,b\n" + "\n".join(rows)).encode(), EITHER


def open_quote(draw: Draw) -> tuple[bytes, str]:
    return b'file,note\n1.jpg,"' + b"never closed\n" * draw.randint(20_000, 60_000), BAD


def many_rows(draw: Draw) -> tuple[bytes, str]:
    return b"file,note\n" + b",\n" * draw.randint(10_000, 20_000), EITHER


def no_table(draw: Draw) -> tuple[bytes, str]:
    noise = draw.randbytes(5_000)
    return draw.choice((b"", b"\n\n\n", noise, b"\xff\xfe", b"PK\3\4" + bytes(90))), BAD


def odd_columns(draw: Draw) -> tuple[bytes, str]:
    heads = ("file,a,a", "file,,x", "FILE,File,x", "note,other,x", "file,<script>,{{7*7}}")
    return f"{draw.choice(heads)}\n1.jpg,x,y\n".encode(), EITHER


# --- What is no file, or does not stay one ------------------------------------------------------


def lay_traps(folder: Path, outside: Path) -> dict[str, str]:
    """Links, devices, pipes and sockets in a folder; by path what must become of each."""
    folder.mkdir(parents=True)
    (folder / "passwd.jpg").symlink_to("/etc/passwd")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "nowhere.jpg").symlink_to("nowhere")
    (folder / "circle.jpg").symlink_to("circle.jpg")
    (folder / "again").symlink_to(folder)
    (folder / "root").symlink_to(outside)
    (folder / "process.jpg").symlink_to("/proc/self/environ")
    os.mkfifo(folder / "pipe.jpg")
    fates = dict.fromkeys(
        ("passwd.jpg", "zero.jpg", "nowhere.jpg", "circle.jpg", "process.jpg", "pipe.jpg"), BAD
    )
    with socket.socket(socket.AF_UNIX) as end:
        there = Path.cwd()
        os.chdir(folder)  # such addresses are short
        end.bind("socket.jpg")
        os.chdir(there)
    fates["socket.jpg"] = BAD
    try:
        os.mknod(folder / "device.jpg", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        fates["device.jpg"] = BAD
    except PermissionError:
        pass
    closed = folder / "closed.jpg"
    closed.write_bytes(make_image(random.Random(1)))
    closed.chmod(0)
    fates["closed.jpg"] = BAD if os.geteuid() else GOOD
    return fates
