"""Draws one synthetic butterfly: its individual traits, its pose, its wings, and the photograph.

Everything comes from `(seed, number)`, so that an image is the same whoever draws it and in
whatever order.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from app.demo.scenery import (
    HEIGHT,
    SHADED,
    WIDTH,
    Field,
    blend,
    draw_background,
    draw_foreground,
    mix,
    noise,
    rotation,
    step,
)
from app.demo.species import WHITE, Colour, Eyespot, Shape, Species

Wing = Literal["fore", "hind"]
CELLS = 7  # fields between the veins of a wing


@dataclass(frozen=True)
class Texture:
    """A flat part of a butterfly; the hinge of the wings is at (left, top) wing lengths in it."""

    image: Image.Image
    density: float  # pixels per wing length
    left: float
    top: float


def draw_image(seed: int, number: int, species: Species, habitat: str) -> Image.Image:
    """The photograph `number` of a collection: one specimen of the species in that habitat."""
    rng = np.random.default_rng([seed, number])
    scene = draw_background(rng, seed, habitat)
    _place_butterfly(
        rng,
        scene,
        species,
        closed=rng.random() < 0.32,
        wear=rng.uniform(0.35, 0.9) if rng.random() < 0.2 else 0.0,
        scale=rng.uniform(88, 162),
        heading=rng.normal(0, 35) if rng.random() < 0.7 else rng.uniform(-180, 180),
        centre=rng.uniform((0.38, 0.4), (0.62, 0.62)) * scene.size,
    )
    if rng.random() < 0.35:
        draw_foreground(rng, scene, habitat)
    return _photograph(rng, scene, habitat)


def draw_plate(seed: int, species: Species) -> Image.Image:
    """Two fresh specimens on a plain ground, wings open and wings closed, as in a field guide."""
    rng = np.random.default_rng(seed)
    plate = Image.new("RGB", (WIDTH, HEIGHT), (214, 212, 208))
    for closed, centre in ((False, (122, 190)), (True, (352, 222))):
        _place_butterfly(rng, plate, species, closed, 0.0, 104, 0.0, np.array(centre))
    return plate


def _place_butterfly(
    rng: np.random.Generator,
    scene: Image.Image,
    species: Species,
    closed: bool,
    wear: float,
    scale: float,
    heading: float,
    centre: Field,
) -> None:
    """Choose an individual and its pose, then lay shadow, wings and body on the scene.

    `wear` from 0 to 1; `scale` in pixels per wing length; `heading` in degrees, 0 upwards.
    """
    scale *= species.size * (1.12 if closed else 1.0)
    density = 120.0 if scale < 118 else 170.0

    individual = _vary(rng, species)
    textures = {
        "fore": _draw_wing(rng, individual, "fore", closed, wear, density),
        "hind": _draw_wing(rng, individual, "hind", closed, wear, density),
        "body": _draw_body(rng, individual, density),
    }
    pose = _closed_pose(rng, scale, heading) if closed else _open_pose(rng, scale, heading)
    parts = [(*_transform(textures[part], matrix, centre), light) for part, matrix, light in pose]
    _cast_shadow(rng, scene, [(image, corner) for image, corner, _ in parts])
    for image, corner, light in parts:
        tone = [min(255, round(level * light)) for level in range(256)]
        lit = image.point([*tone * 3, *range(256)])
        scene.paste(lit, corner, lit)


def _vary(rng: np.random.Generator, species: Species) -> Species:
    """One individual of a species: no two have quite the same colours and proportions."""
    warmth, tone = rng.normal(0, 7), rng.normal(1, 0.06)
    ringed = rng.uniform(0.8, 1.15)

    def tint(colour: Colour) -> Colour:
        shifted = np.array(colour) * tone + (warmth, rng.normal(0, 3), -warmth)
        red, green, blue = np.clip(shifted, 0, 255).astype(int).tolist()
        return red, green, blue

    return replace(
        species,
        base=tint(species.base),
        outer=tint(species.outer),
        under=tint(species.under),
        margin_width=species.margin_width * rng.uniform(0.75, 1.3),
        band_out=species.band_out + rng.normal(0, 0.018),
        band_width=species.band_width * rng.uniform(0.75, 1.3),
        spots_radius=species.spots_radius * rng.uniform(0.75, 1.25),
        eyespots=tuple(
            replace(eyespot, radius=eyespot.radius * ringed) for eyespot in species.eyespots
        ),
    )


# --- Pose: parts from back to front, each with its matrix from wing lengths to pixels and its light

Pose = list[tuple[str, Field, float]]


def _open_pose(rng: np.random.Generator, scale: float, heading: float) -> Pose:
    """Seen from above: four wings, each a plane hinged on the body, lit by its own slope."""
    lift, roll, pitch = rng.uniform(0, 36), rng.normal(0, 9), rng.normal(0, 14)
    spread = rng.normal(9, 9)
    light = rng.uniform(-0.3, 0.3)
    view = scale * rotation(heading) @ np.diag([1, -math.cos(math.radians(pitch))])
    pose: Pose = []
    for part, turn in (("hind", spread * 0.6), ("fore", -spread)):
        for side in (-1, 1):
            slope = math.radians(lift + side * roll)
            flat = np.diag([side * math.cos(slope), 1])
            shade = 1 + 2 * light * side * math.sin(slope) - 0.12 * abs(math.sin(slope))
            matrix = view @ flat @ rotation(turn + rng.normal(0, 1.5))
            pose.append((part, matrix, float(np.clip(shade, 0.6, 1.15))))
    pose.append(("body", view, 1.0))
    return pose


def _closed_pose(rng: np.random.Generator, scale: float, heading: float) -> Pose:
    """Seen from the side, wings closed above the body: the undersides of one pair."""
    facing = 1 if rng.random() < 0.5 else -1
    tilt = math.cos(math.radians(rng.uniform(0, 35)))
    view = scale * rotation(heading * 0.5) @ np.array([[0, facing], [-tilt, 0]])
    return [
        ("body", view, 1.0),
        ("fore", view @ rotation(rng.uniform(-4, 24)), 0.9),
        ("hind", view @ rotation(rng.uniform(22, 34)), 1.0),
    ]


def _transform(
    texture: Texture, matrix: Field, centre: Field
) -> tuple[Image.Image, tuple[int, int]]:
    """A texture laid on the scene: the image to paste, and where its corner goes."""
    hinge = np.array([texture.left, texture.top])
    far = np.array(texture.image.size) / texture.density - hinge
    corners = np.array([(u, v) for u in (-hinge[0], far[0]) for v in (hinge[1], -far[1])])
    placed = corners @ matrix.T + centre
    start = np.clip(np.floor(placed.min(axis=0)), 0, (WIDTH, HEIGHT)).astype(int)
    size = np.clip(np.ceil(placed.max(axis=0)), 0, (WIDTH, HEIGHT)).astype(int) - start
    back = texture.density * np.diag([1, -1]) @ np.linalg.inv(matrix)
    offset = back @ (start - centre) + texture.density * hinge
    image = texture.image.transform(
        (int(size[0]), int(size[1])),
        Image.Transform.AFFINE,
        (back[0, 0], back[0, 1], offset[0], back[1, 0], back[1, 1], offset[1]),
        Image.Resampling.BICUBIC,
    )
    return image, (int(start[0]), int(start[1]))


def _cast_shadow(
    rng: np.random.Generator, scene: Image.Image, parts: list[tuple[Image.Image, tuple[int, int]]]
) -> None:
    shadow = Image.new("L", (WIDTH // 2, HEIGHT // 2))
    height = rng.uniform(3, 14)
    dx, dy = rng.uniform(-1, 1) * height, rng.uniform(0.3, 1) * height
    for image, (x, y) in parts:
        outline = image.getchannel("A").resize((image.width // 2 + 1, image.height // 2 + 1))
        shadow.paste(255, (round((x + dx) / 2), round((y + dy) / 2)), outline)
    strength = rng.uniform(0.25, 0.6)
    shadow = shadow.filter(ImageFilter.GaussianBlur(height / 3))
    shadow = shadow.point([round(level * strength) for level in range(256)])
    scene.paste((12, 12, 16), (0, 0), shadow.resize(scene.size, Image.Resampling.BILINEAR))


# --- The parts -----------------------------------------------------------------------------------


def _draw_body(rng: np.random.Generator, species: Species, density: float) -> Texture:
    """Abdomen, thorax, head and antennae, seen from above."""
    left, top, zoom = 0.34, 0.64, 2
    unit = density * zoom
    image = Image.new("RGBA", (round(2 * left * unit), round(1.26 * unit)))
    draw = ImageDraw.Draw(image)
    dark = blend((14, 14, 14), species.margin, 0.45)
    light = blend(blend(dark, (60, 56, 50), 0.5), species.base, 0.35)

    def ellipse(u: float, v: float, across: float, length: float, fill: Colour) -> None:
        x, y = (left + u) * unit, (top - v) * unit
        a, b = across * unit, length * unit
        draw.ellipse((x - a, y - b, x + a, y + b), fill=fill)

    spread = rng.uniform(0.12, 0.26)
    for lean in (-spread, spread):
        tip = 0.5 + rng.uniform(0, 0.08)
        ends = (left * unit, (top - 0.14) * unit, (left + lean) * unit, (top - tip) * unit)
        draw.line(ends, fill=dark, width=max(2, round(unit * 0.012)))
        ellipse(lean, tip, 0.016, 0.026, dark)
    ellipse(0, -0.26, 0.042, 0.27, dark)
    for segment in range(5):
        ellipse(0, -0.12 - 0.075 * segment, 0.028 - 0.002 * segment, 0.02, light)
    ellipse(0, 0.03, 0.062, 0.115, dark)
    ellipse(0.008, 0.045, 0.04, 0.075, light)
    ellipse(0, 0.155, 0.04, 0.04, dark)
    return Texture(image.reduce(zoom), density, left, top)


@dataclass(frozen=True)
class Geometry:
    """Of every pixel of a wing texture, in wing lengths: where it lies on the wing."""

    left: float
    top: float
    soft: float  # half the width of a smooth edge: a pixel and a half
    u: Field  # away from the body
    v: Field  # towards the head
    along: Field  # 0 at the trailing, 1 at the leading edge
    radius: Field  # from the hinge
    edge: Field  # radius of the outline in that direction
    cell: Field  # from vein to vein, -0.5 to 0.5
    to_middle: Field  # from the middle between two veins
    to_vein: Field


@lru_cache(maxsize=64)
def _geometry(shape: Shape, density: float) -> Geometry:
    low, high = shape.angles[0], shape.angles[-1]
    angles = np.linspace(low, high, 720)
    corners = np.interp(angles, shape.angles, shape.radii)
    window = np.hanning(81)
    padded = np.pad(corners, 40, mode="reflect", reflect_type="odd")
    outline = np.convolve(padded, window / window.sum(), "valid")
    outline *= 1 - shape.scallop * np.abs(np.sin(np.pi * CELLS * (angles - low) / (high - low)))
    for from_end in (angles - low, high - angles):  # round the two corners of the outline
        outline *= 1 - 0.3 * np.exp(-from_end / 3)
    us = np.append(outline * np.cos(np.radians(angles)), 0)
    vs = np.append(outline * np.sin(np.radians(angles)), 0)

    left, top = 0.03 - us.min(), 0.03 + vs.max()
    columns = round((us.max() + 0.03 + left) * density)
    lines = round((top - vs.min() + 0.03) * density)
    u, v = np.meshgrid(np.arange(columns) / density - left, top - np.arange(lines) / density)
    theta = np.degrees(np.arctan2(v, u))
    theta = np.where(theta > 140, theta - 360, theta)
    radius = np.hypot(u, v)
    # Beyond the straight edges a wing ends by distance, so that they are as smooth as the margin.
    beyond = np.clip(np.maximum(theta - high, low - theta), 0, 90)
    margin = np.interp(theta, angles, outline)
    edge = np.minimum(
        margin, np.where(beyond > 0, radius * (1 - np.sin(np.radians(beyond))), np.inf)
    )
    along = (theta - low) / (high - low)
    cell = along * CELLS - np.floor(along * CELLS) - 0.5
    width = radius * math.radians(high - low) / CELLS
    to_vein = (0.5 - np.abs(cell)) * width
    fields = (u, v, along, radius, np.maximum(edge, 1e-3), cell, cell * width, to_vein)
    return Geometry(left, top, 1.6 / density, *(field.astype(np.float32) for field in fields))


def _draw_wing(
    rng: np.random.Generator,
    species: Species,
    wing: Wing,
    under: bool,
    wear: float,
    density: float,
) -> Texture:
    """One wing, flat: ground colour, pattern, veins, scales, wear, outline."""
    shape = species.fore if wing == "fore" else species.hind
    geometry = _geometry(shape, density)
    soft = geometry.soft
    colours = _paint_ground(rng, species, geometry, under)
    show = 0.75 if under else 1.0
    _paint_bands(colours, species, wing, geometry, show)
    _paint_dots(colours, species, wing, geometry, show)
    for eyespot in species.eyespots:
        if eyespot.wing == wing:
            _paint_eyespot(colours, shape, geometry, eyespot)
    veins = species.veins * (1 - step(0.004, 0.012, geometry.to_vein))
    mix(colours, blend(species.margin, species.base, 0.2), veins)
    scales = rng.standard_normal(geometry.along.shape, dtype=np.float32)
    colours *= (0.9 + 0.2 * noise(rng, scales.shape, 5) + 0.05 * scales)[..., None]

    alpha = step(-soft, soft, geometry.edge - geometry.radius)
    if wear:
        pale = blend(species.under, (206, 196, 178), 0.6)
        mix(colours, pale, wear * (0.25 + 0.6 * noise(rng, scales.shape, 7)))
        for _ in range(rng.integers(1, 5)):
            alpha *= _notch(rng, shape, geometry)
    pixels = np.dstack([np.clip(colours, 0, 255), alpha * 255]).astype(np.uint8)
    return Texture(Image.fromarray(pixels), density, geometry.left, geometry.top)


def _paint_ground(
    rng: np.random.Generator, species: Species, geometry: Geometry, under: bool
) -> Field:
    """The colour from hinge to margin; the underside is paler and mottled."""
    ground = species.under if under else species.base
    outer = blend(species.outer, species.under, 0.7) if under else species.outer
    colours = np.empty((*geometry.along.shape, 3), dtype=np.float32)
    colours[:] = ground
    mix(colours, outer, step(0.3, 0.95, geometry.radius / geometry.edge))
    if under:
        mix(colours, blend(ground, species.margin, 0.45), 0.5 * noise(rng, colours.shape, 9))
    mix(colours, blend(ground, species.margin, 0.75), 0.6 * step(-0.3, -0.02, -geometry.radius))
    return colours


def _paint_bands(
    colours: Field, species: Species, wing: Wing, geometry: Geometry, show: float
) -> None:
    """What runs along the wing or crosses it: stripes, band, bars, dark tip, margin."""
    along, soft, out = geometry.along, geometry.soft, geometry.radius / geometry.edge
    if species.stripes:
        wave = np.sin((out * species.stripes + 0.25) * 2 * np.pi + 0.8 * (along - 0.5))
        stripes = step(0.35, 0.55, wave) * step(0.1, 0.16, geometry.radius)
        mix(colours, species.stripe, show * stripes)
    if species.band is not None:
        reach = species.band_width * (1 - species.band_broken * 2 * np.abs(geometry.cell))
        place = out - species.band_out - 0.07 * np.cos(along * 5)
        mix(colours, species.band, show * step(-soft, soft, reach - np.abs(place)))
    if species.bars and wing == "fore":
        for middle in (0.36, 0.5):
            inside = np.minimum(
                0.022 - np.abs(geometry.radius - middle), 0.13 - np.abs(along - 0.8)
            )
            mix(colours, species.margin, show * step(-soft, soft, inside))
    if species.apex is not None and wing == "fore":
        tip = out + 0.5 * along - 1.14 + 0.02 * np.sin(along * 40)
        mix(colours, species.apex, show * step(-0.01, 0.03, tip))
    margin = species.margin_width * (1 - 0.5 * np.abs(geometry.cell))
    inside = margin - (geometry.edge - geometry.radius)
    mix(colours, species.margin, show * step(-2 * soft, soft, inside))


def _paint_dots(
    colours: Field, species: Species, wing: Wing, geometry: Geometry, show: float
) -> None:
    """Rows of dots, one between every two veins."""
    edge = geometry.edge
    rows: list[tuple[Colour, Field | float, float, float]] = []
    if species.apex_spots and wing == "fore":
        rows.append((WHITE, 0.82 * edge, 0.035, 1.0))
    if species.margin_dots is not None:
        rows.append((species.margin_dots, edge - 0.5 * species.margin_width, 0.02, 1.0))
    if species.spots is not None:
        rows.append((species.spots, species.spots_out * edge, species.spots_radius, show))
    for colour, row, size, opacity in rows:
        distance = np.hypot(geometry.radius - row, geometry.to_middle)
        mix(colours, colour, opacity * step(-geometry.soft, geometry.soft, size - distance))


def _paint_eyespot(colours: Field, shape: Shape, geometry: Geometry, eyespot: Eyespot) -> None:
    """A dark border, a ring, a black disc, perhaps a coloured core, and a white glint."""
    angle = shape.angles[0] + eyespot.along * (shape.angles[-1] - shape.angles[0])
    right, ahead = _from_place(shape, geometry, angle, eyespot.out)
    discs = [(1.18, (46, 30, 22)), (1.0, eyespot.ring), (0.66, (22, 18, 22))]
    if eyespot.core is not None:
        discs.append((0.42, eyespot.core))
    for size, colour in discs:
        inside = eyespot.radius * size - np.hypot(right, ahead)
        mix(colours, colour, step(-geometry.soft, geometry.soft, inside))
    glint = np.hypot(right - 0.16 * eyespot.radius, ahead - 0.16 * eyespot.radius)
    mix(colours, WHITE, step(-geometry.soft, geometry.soft, 0.24 * eyespot.radius - glint))


def _notch(rng: np.random.Generator, shape: Shape, geometry: Geometry) -> Field:
    """A piece torn from the margin: 0 where the wing is gone."""
    angle, out = rng.uniform(shape.angles[0], shape.angles[-1]), rng.uniform(0.8, 1.0)
    right, ahead = _from_place(shape, geometry, angle, out)
    size = rng.uniform(0.02, 0.09)
    ragged = 0.05 * (noise(rng, right.shape, 30) - 0.5)
    kept = step(-geometry.soft, geometry.soft, np.hypot(right, ahead) - size + ragged)
    # What lies beyond the tear, seen from the hinge, is gone with it.
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    beyond = (right * cos + ahead * sin > 0) & (np.abs(right * sin - ahead * cos) < size)
    return np.where(beyond, 0, kept)


def _from_place(shape: Shape, geometry: Geometry, angle: float, out: float) -> tuple[Field, Field]:
    """Every pixel seen from a place on the wing: how far away from the body, how far ahead."""
    far = out * float(np.interp(angle, shape.angles, shape.radii))
    right = geometry.u - far * math.cos(math.radians(angle))
    ahead = geometry.v - far * math.sin(math.radians(angle))
    return right, ahead


# --- The camera ----------------------------------------------------------------------------------


def _photograph(rng: np.random.Generator, scene: Image.Image, habitat: str) -> Image.Image:
    """Focus, light and its colour, dapple, fall-off towards the corners, sensor noise."""
    if rng.random() < 0.3:
        scene = scene.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 1.7))))
    pixels = np.asarray(scene, dtype=np.float32)
    exposure = math.exp(rng.normal(-0.02, 0.15))
    warmth = rng.normal(0, 0.04)
    tint = np.array([1 + warmth, 1 + rng.normal(0, 0.012), 1 - warmth]) * exposure
    light = 1 - rng.uniform(0, 0.25) * _corners()
    if habitat in SHADED and rng.random() < 0.5:
        leaves = noise(rng, (HEIGHT, WIDTH), int(rng.integers(4, 9)))
        light = light * (0.62 + 0.5 * step(0.3, 0.65, leaves))
    contrast = rng.uniform(0.88, 1.1)
    grain = rng.uniform(1, 7) * rng.standard_normal((HEIGHT, WIDTH), dtype=np.float32)
    pixels = pixels * (light[..., None] * (tint * contrast).astype(np.float32))
    pixels += (grain + 118 * (1 - contrast)).astype(np.float32)[..., None]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@lru_cache(maxsize=1)
def _corners() -> Field:
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    return np.asarray(np.clip(np.hypot(x, y) - 0.45, 0, None) ** 1.5, dtype=np.float32)
