"""Reading one file: formats, orientation, colours, metadata, thumbnails, and what is refused."""

import hashlib
import io
import random
import struct
import zlib
from datetime import datetime
from pathlib import Path

import PIL.Image
import pytest
from PIL import ImageChops, ImageCms, ImageStat

from app.errors import RarefindError
from app.reading import (
    DAMAGED,
    EMPTY,
    NEAR_SMALL,
    NOT_AN_IMAGE,
    NOT_READABLE,
    NOT_SUPPORTED,
    TOO_LARGE,
    Metadata,
    ReadImage,
    Reading,
    Refusal,
    SourceFile,
    read_bytes,
    read_file,
    read_files,
    thumbnail_path,
)
from tests.factories import make_image_file, make_picture

# What turns an upright picture into one stored with that EXIF orientation.
STORED = {
    1: None,
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}


def read(data: bytes, home: Path, max_megapixels: float = 100.0) -> ReadImage:
    return read_bytes(data, home, max_megapixels)


def open_thumbnail(image: ReadImage, home: Path, side: int = 320) -> PIL.Image.Image:
    path = thumbnail_path(home, image.sha256, image.width, image.height, side)
    with PIL.Image.open(path) as thumbnail:
        thumbnail.load()
        return thumbnail


def to_bytes(picture: PIL.Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def assert_corners(picture: PIL.Image.Image) -> None:
    """The quarters are where `make_picture` put them."""
    width, height = picture.size
    corners = [
        picture.getpixel((width * x // 10, height * y // 10)) for y in (1, 9) for x in (1, 9)
    ]
    expected = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    for found, wanted in zip(corners, expected, strict=True):
        assert all(abs(a - b) < 40 for a, b in zip(found, wanted, strict=True)), corners


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, file_format: str, orientation: int) -> None:
    stored = make_picture(size=(60, 40))
    if (turn := STORED[orientation]) is not None:
        stored = stored.transpose(turn)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image = read(to_bytes(stored, file_format, exif=exif), tmp_path)
    assert (image.width, image.height, image.orientation) == (60, 40, orientation)
    thumbnail = open_thumbnail(image, tmp_path)
    assert thumbnail.size == (60, 40)
    assert_corners(thumbnail)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_counts_as_upright(
    tmp_path: Path, orientation: int
) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    image = read(to_bytes(make_picture(), "JPEG", exif=exif), tmp_path)
    assert (image.width, image.height, image.orientation) == (60, 40, 1)


@pytest.mark.parametrize("kind", ["landscape", "portrait"])
def test_real_photos_of_each_orientation_look_the_same(
    tmp_path: Path, shared_data: Path, kind: str
) -> None:
    thumbnails = []
    for orientation in (3, 6, 8):
        image = read((shared_data / f"exif/{kind}_{orientation}.jpg").read_bytes(), tmp_path)
        assert (image.width, image.height) == ((600, 450) if kind == "landscape" else (450, 600))
        thumbnails.append(open_thumbnail(image, tmp_path).convert("L"))
    for other in thumbnails[1:]:
        assert ImageStat.Stat(ImageChops.difference(thumbnails[0], other)).mean[0] < 5


@pytest.mark.parametrize(
    ("size", "thumbnails"),
    [
        ((100, 80), {320: (100, 80), 1280: (100, 80)}),
        ((320, 8), {320: (320, 8), 1280: (320, 8)}),
        ((500, 300), {320: (320, 192), 1280: (500, 300)}),
        ((1700, 3000), {320: (182, 320), 1280: (725, 1280)}),
        ((2900, 1), {320: (320, 1), 1280: (1280, 1)}),
    ],
)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_thumbnails_fit_and_are_never_enlarged(
    tmp_path: Path, file_format: str, size: tuple[int, int], thumbnails: dict[int, tuple[int, int]]
) -> None:
    image = read(to_bytes(make_picture(size=size), file_format), tmp_path)
    assert {side: open_thumbnail(image, tmp_path, side).size for side in (320, 1280)} == thumbnails
    files = [path for path in (tmp_path / "thumbnails").rglob("*") if path.is_file()]
    assert len(files) == len(set(thumbnails.values()))
    assert {path.parent.name for path in files} == {image.sha256[:2]}


@pytest.mark.parametrize(
    ("size", "large"),
    [
        ((1281, 900), (1281, 900)),  # near enough as it is
        ((1500, 1001), (1280, 854)),  # too large as it is, too small at a half
        ((2001, 1333), (1001, 667)),
        ((2592, 1944), (1296, 972)),
        ((1944, 2592), (972, 1296)),
        ((3000, 2000), (1280, 853)),
        ((3841, 99), (961, 25)),
    ],
)
def test_large_thumbnails_of_jpegs_take_a_size_the_decoder_gives_for_nothing(
    tmp_path: Path, size: tuple[int, int], large: tuple[int, int]
) -> None:
    image = read(to_bytes(make_picture(size=size), "JPEG"), tmp_path)
    assert open_thumbnail(image, tmp_path, 1280).size == large
    assert max(open_thumbnail(image, tmp_path, 320).size) in NEAR_SMALL


def test_thumbnails_of_large_photos_are_like_the_photo(tmp_path: Path, shared_data: Path) -> None:
    file = next((shared_data / "camtrap_dp/media").iterdir())
    image = read(file.read_bytes(), tmp_path)
    with PIL.Image.open(file) as photo:
        for side in (320, 1280):
            thumbnail = open_thumbnail(image, tmp_path, side)
            plain = photo.convert("RGB").resize(thumbnail.size, PIL.Image.Resampling.LANCZOS)
            assert max(ImageStat.Stat(ImageChops.difference(thumbnail, plain)).mean) < 4


def test_thumbnails_carry_no_metadata(tmp_path: Path, shared_data: Path) -> None:
    for name in ("DSCN0010.jpg", "landscape_6.jpg"):
        image = read((shared_data / "exif" / name).read_bytes(), tmp_path)
        for side in (320, 1280):
            info = open_thumbnail(image, tmp_path, side).info
            assert not {"exif", "icc_profile", "comment", "xmp", "photoshop"} & set(info)
    commented = to_bytes(make_picture(), "JPEG", comment=b"taken by somebody")
    assert b"somebody" in commented
    image = read(commented, tmp_path)
    assert "comment" not in open_thumbnail(image, tmp_path).info


def test_thumbnails_are_written_once(tmp_path: Path) -> None:
    data = to_bytes(make_picture(), "JPEG")
    image = read(data, tmp_path)
    path = thumbnail_path(tmp_path, image.sha256, 60, 40, 320)
    before = path.stat().st_ino
    assert read(data, tmp_path) == image
    assert path.stat().st_ino == before  # written anew it would be another file


def test_the_hash_and_size_are_those_of_the_file(tmp_path: Path) -> None:
    data = to_bytes(make_picture(), "PNG")
    image = read(data, tmp_path)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert image.size_bytes == len(data)


@pytest.mark.parametrize(
    ("file_format", "mode", "options"),
    [
        ("JPEG", "RGB", {}),
        ("JPEG", "RGB", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "RGB", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {}),
        ("WEBP", "RGB", {"lossless": True}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("TIFF", "CMYK", {}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
    ],
)
def test_every_format_is_read_in_its_colours(
    tmp_path: Path, file_format: str, mode: str, options: dict[str, object]
) -> None:
    picture = make_picture(size=(64, 64), mode=mode)
    image = read(to_bytes(picture, file_format, **options), tmp_path)
    assert image.format == file_format
    thumbnail = open_thumbnail(image, tmp_path)
    assert thumbnail.mode == "RGB"
    assert_corners(thumbnail)


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(tmp_path: Path, file_format: str) -> None:
    black = PIL.Image.new("RGB", (60, 40))
    data = to_bytes(
        make_picture(), file_format, save_all=True, append_images=[black, black], duration=50
    )
    assert_corners(open_thumbnail(read(data, tmp_path), tmp_path))


def test_a_jpeg_with_previews_is_a_jpeg(tmp_path: Path) -> None:
    data = to_bytes(make_picture(), "MPO", save_all=True, append_images=[make_picture(1)])
    image = read(data, tmp_path)
    assert image.format == "JPEG"
    assert_corners(open_thumbnail(image, tmp_path))


def test_transparency_is_shown_on_white(tmp_path: Path) -> None:
    picture = PIL.Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 20, 40))
    palette = picture.convert("P", palette=PIL.Image.Palette.ADAPTIVE)
    palette.info["transparency"] = palette.getpixel((30, 5))
    for data in (
        to_bytes(picture, "PNG"),
        to_bytes(picture, "WEBP", lossless=True),
        to_bytes(palette, "PNG"),
        to_bytes(palette, "GIF"),
    ):
        thumbnail = open_thumbnail(read(data, tmp_path), tmp_path)
        assert min(thumbnail.getpixel((35, 5))) > 245
        red, _, blue = thumbnail.getpixel((5, 5))
        assert red < 60
        assert blue > 200


@pytest.mark.parametrize(
    ("mode", "file_format", "values"),
    [
        ("I;16", "PNG", (0, 16384, 32768, 65535)),
        ("I;16", "TIFF", (0, 16384, 32768, 65535)),
        ("I", "TIFF", (-1000, -500, 0, 1000)),  # no agreed range: darkest to brightest
        ("F", "TIFF", (0.0, 0.25, 0.5, 1.0)),
        ("L", "PNG", (0, 64, 128, 255)),
    ],
)
def test_deep_and_grey_pictures_keep_their_greys(
    tmp_path: Path, mode: str, file_format: str, values: tuple[float, ...]
) -> None:
    picture = PIL.Image.new(mode, (64, 16))
    picture.putdata([value for _ in range(16) for value in values for _ in range(16)])
    thumbnail = open_thumbnail(read(to_bytes(picture, file_format), tmp_path), tmp_path)
    greys = [thumbnail.getpixel((column * 16 + 8, 8)) for column in range(4)]
    for grey, wanted in zip(greys, (0, 64, 128, 255), strict=True):
        assert max(grey) - min(grey) <= 2
        assert abs(grey[0] - wanted) <= 3, greys


def test_colours_of_another_profile_become_srgb(tmp_path: Path) -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # A profile in which the file's red is blue: the tags of two primaries change places.
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    while (at := profile.find("sRGB".encode("utf-16-be"))) >= 0:
        profile[at : at + 8] = "odd!".encode("utf-16-be")
    picture = PIL.Image.new("RGB", (40, 40), (255, 0, 0))
    for file_format in ("JPEG", "PNG"):
        data = to_bytes(picture, file_format, icc_profile=bytes(profile))
        red, _, blue = open_thumbnail(read(data, tmp_path), tmp_path).getpixel((20, 20))
        assert red < 60
        assert blue > 200


def test_a_broken_profile_is_ignored(tmp_path: Path) -> None:
    data = to_bytes(make_picture(), "JPEG", icc_profile=b"no profile at all" * 10)
    assert_corners(open_thumbnail(read(data, tmp_path), tmp_path))


def test_metadata_of_a_real_photo(tmp_path: Path, shared_data: Path) -> None:
    metadata = read((shared_data / "exif/DSCN0010.jpg").read_bytes(), tmp_path).metadata
    assert metadata.captured_at == datetime(2008, 10, 22, 16, 28, 39)  # not its DateTime, November
    assert metadata.latitude == pytest.approx(43 + 28 / 60 + 2.814 / 3600)
    assert metadata.longitude == pytest.approx(11 + 53 / 60 + 6.45599999 / 3600)
    assert metadata.camera == "NIKON COOLPIX P6000"
    frame = next((shared_data / "camtrap_dp/media").glob("*RCNX0031.JPG"))
    metadata = read(frame.read_bytes(), tmp_path).metadata
    assert metadata.captured_at == datetime(2021, 4, 11, 20, 43, 9)
    assert metadata.camera == "RECONYX HYPERFIRE 2 COVERT"  # stored with a zero byte at its end
    assert metadata.latitude is None


def make_exif(
    main: dict[int, object] | None = None,
    camera: dict[int, object] | None = None,
    gps: dict[int, object] | None = None,
) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif.update(main or {})
    exif.get_ifd(0x8769).update(camera or {})
    exif.get_ifd(0x8825).update(gps or {})
    return exif


@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (make_exif(), Metadata()),
        (
            make_exif(gps={1: "S", 2: (33.0, 30.0, 36.0), 3: "W", 4: (70.0, 15.0, 0.0)}),
            Metadata(latitude=-33.51, longitude=-70.25),
        ),
        (make_exif(gps={1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}), Metadata()),
        (make_exif(gps={1: "N", 2: (91.0, 0.0, 0.0), 3: "E", 4: (10.0, 0.0, 0.0)}), Metadata()),
        (make_exif(gps={2: (33.0, 30.0, 36.0), 4: (70.0, 15.0, 0.0)}), Metadata()),
        (make_exif(gps={1: "N", 2: (33.0, 30.0, 36.0)}), Metadata()),
        (
            make_exif(camera={0x9003: "2024:02:29 23:59:58", 0x9291: "25"}),
            Metadata(captured_at=datetime(2024, 2, 29, 23, 59, 58, 250_000)),
        ),
        (
            make_exif(camera={0x9003: "0000:00:00 00:00:00", 0x9004: "2020-01-02 03:04:05"}),
            Metadata(captured_at=datetime(2020, 1, 2, 3, 4, 5)),
        ),
        (make_exif(camera={0x9003: "2023:02:30 10:00:00"}), Metadata()),
        (make_exif(main={0x0132: "2020:01:02 03:04:05"}), Metadata()),  # when it was saved
        (make_exif(main={0x010F: "Canon", 0x0110: "Canon 40D"}), Metadata(camera="Canon 40D")),
        (make_exif(main={0x0110: "  Trap\x00\x07 3 "}), Metadata(camera="Trap 3")),
    ],
)
def test_metadata_is_read_or_none(tmp_path: Path, exif: PIL.Image.Exif, expected: Metadata) -> None:
    metadata = read(to_bytes(make_picture(), "JPEG", exif=exif), tmp_path).metadata
    assert (metadata.captured_at, metadata.camera) == (expected.captured_at, expected.camera)
    assert metadata.latitude == pytest.approx(expected.latitude)
    assert metadata.longitude == pytest.approx(expected.longitude)


def test_broken_exif_never_stops_an_import(tmp_path: Path, shared_data: Path) -> None:
    broken = sorted((shared_data / "exif").glob("image0*.jpg"))
    assert len(broken) == 7
    for file in broken:
        read(file.read_bytes(), tmp_path)
    photo = (shared_data / "exif/DSCN0010.jpg").read_bytes()
    start, end = photo.index(b"Exif\0\0") + 6, photo.index(b"\xff\xdb")
    rng = random.Random(7)
    for _ in range(60):
        damaged = bytearray(photo)
        for _ in range(rng.choice((1, 20, 400))):
            # 0xff would begin another segment: that is no longer EXIF alone.
            damaged[rng.randrange(start, end)] = rng.randrange(255)
        image = read(bytes(damaged), tmp_path)
        assert {image.width, image.height} == {640, 480}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_damage_anywhere_is_an_image_or_a_refusal(tmp_path: Path, file_format: str) -> None:
    whole = to_bytes(make_picture(), file_format)
    rng = random.Random(file_format)
    for _ in range(80):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 5, 50))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        del damaged[rng.choice((len(damaged), rng.randrange(len(damaged)))) :]
        try:
            image = read(bytes(damaged), tmp_path)
        except Refusal as refusal:
            assert refusal.detail.endswith(".")
        else:
            assert open_thumbnail(image, tmp_path).mode == "RGB"


def test_content_decides_not_the_name(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "source/photo.jpg", file_format="PNG")
    image = read_file(found(file), make_reading(tmp_path))
    assert (image.format, image.file) == ("PNG", str(file))


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )


def preview_tiff() -> bytes:
    """A TIFF whose first picture calls itself reduced, as those in raw camera files do."""
    return to_bytes(make_picture(), "TIFF", tiffinfo={254: 1})


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"", EMPTY, "empty"),
        (b"These are field notes.", NOT_AN_IMAGE, "JPEG"),
        (b"\0\0\0\x18ftypmp42" + bytes(100), NOT_AN_IMAGE, "JPEG"),
        (b"\0\0\0\x18ftypheic" + bytes(100), NOT_SUPPORTED, "HEIC"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(100), NOT_SUPPORTED, "Raw"),
        (preview_tiff(), NOT_SUPPORTED, "Raw"),
        (to_bytes(make_picture(), "JPEG")[:-200], DAMAGED, "cut short"),
        (to_bytes(make_picture(), "PNG")[:100], DAMAGED, "cut short"),
        (to_bytes(make_picture(), "TIFF")[:60], DAMAGED, "header"),
        (to_bytes(make_picture(), "GIF")[:20], DAMAGED, ""),
        (to_bytes(make_picture(), "WEBP")[:60], DAMAGED, ""),
        (b"\xff\xd8\xff" + bytes(50), DAMAGED, "header"),
        (png_header(60_000, 60_000), TOO_LARGE, "60,000 × 60,000 pixels, 3,600 megapixels"),
        (png_header(0, 10), DAMAGED, ""),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_reason(
    tmp_path: Path, data: bytes, reason: str, words: str
) -> None:
    file = tmp_path / "file.jpg"
    file.write_bytes(data)
    [refusal] = read_files([found(file)], make_reading(tmp_path))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert words in refusal.detail
    assert str(tmp_path) not in refusal.detail
    assert not (tmp_path / "home/thumbnails").exists()


def test_the_limit_in_megapixels_is_the_setting(tmp_path: Path) -> None:
    data = to_bytes(make_picture(size=(100, 100)), "PNG")
    read(data, tmp_path, max_megapixels=0.01)
    with pytest.raises(Refusal) as caught:
        read(data, tmp_path, max_megapixels=0.0099)
    assert caught.value.reason == TOO_LARGE


def test_a_file_that_is_gone_is_not_readable(tmp_path: Path) -> None:
    [refusal] = read_files(
        [SourceFile("gone.jpg", 10, 0, str(tmp_path / "gone.jpg"))], make_reading(tmp_path)
    )
    assert isinstance(refusal, Refusal)
    assert refusal.reason == NOT_READABLE
    assert refusal.detail == "It can't be read: No such file or directory."


def test_a_data_folder_that_cannot_be_written_is_no_fault_of_the_file(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "photo.jpg")
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(RarefindError, match="can't write"):
        read_files([found(file)], make_reading(tmp_path))


def test_a_copy_is_named_by_its_content(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "photo.jpeg")
    image = read_file(found(file), make_reading(tmp_path, copy=True))
    copy = Path(image.file)
    assert copy == tmp_path / f"originals/{image.sha256[:2]}/{image.sha256}.jpg"
    assert copy.read_bytes() == file.read_bytes()
    assert list((tmp_path / "originals").glob("*.part")) == []


def test_a_refused_file_leaves_no_copy(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(to_bytes(make_picture(), "JPEG")[:-200])
    read_files([found(file)], make_reading(tmp_path, copy=True))
    assert [path for path in (tmp_path / "originals").rglob("*") if path.is_file()] == []


def found(file: Path) -> SourceFile:
    return SourceFile(file.name, file.stat().st_size, file.stat().st_mtime_ns, str(file))


def make_reading(folder: Path, *, copy: bool = False) -> Reading:
    return Reading(
        home=folder / "home",
        max_megapixels=100.0,
        originals=folder / "originals",
        copy=copy,
        zip_file=None,
    )
