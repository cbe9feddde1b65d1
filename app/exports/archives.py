"""Files together in one zip, made while it is sent: nothing is held whole in memory."""

from collections.abc import Iterable, Iterator

from zipstream import ZIP_DEFLATED, ZIP_STORED, ZipStream

Parts = Iterable[tuple[str, Iterable[str | bytes]]]


def pack(parts: Parts, *, compress: bool) -> Iterator[bytes]:
    """A zip of named parts, each made when its turn comes."""
    archive = ZipStream(compress_type=ZIP_DEFLATED if compress else ZIP_STORED)
    for name, content in parts:
        archive.add(to_bytes(content), name)
        yield from archive.all_files()
    yield from archive.finalize()


def to_bytes(content: Iterable[str | bytes]) -> Iterator[bytes]:
    """Text as UTF-8."""
    for some in content:
        yield some.encode() if isinstance(some, str) else some
