"""Where the demo's butterflies sit: habitats, their textures, and what lies before the camera.

A texture is drawn once per process and larger than an image; every image shows its own part of one.
The brushes that the specimens share stand at the end.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from app.demo.species import Colour

WIDTH, HEIGHT = 480, 360  # pixels of a drawn image
TEXTURE = (720, 540)  # pixels of a texture
VARIANTS = 3  # textures of each kind
HABITATS = {
    "field-station": ("cloth", "cloth", "cloth", "bark"),
    "forest-floor": ("litter", "litter", "moss", "bark"),
    "hedge": ("foliage", "foliage", "bark", "grass"),
    "hilltop": ("sky", "sky", "grass", "stone"),
    "meadow": ("grass", "flowers", "flowers", "foliage"),
    "quarry": ("stone", "stone", "gravel", "litter"),
}
SHADED = ("forest-floor", "hedge")  # by trees: twigs in front, dappled light

Field = NDArray[np.floating]


def draw_background(rng: np.random.Generator, seed: int, habitat: str) -> Image.Image:
    """A part of one of the habitat's textures, turned, zoomed, more or less in focus."""
    kind = HABITATS[habitat][rng.integers(len(HABITATS[habitat]))]
    texture = _texture(seed, kind, int(rng.integers(VARIANTS)))
    part = np.array(TEXTURE) * rng.uniform(0.5, 1.0)
    x, y = rng.uniform(0, np.array(TEXTURE) - part)
    box = (x, y, x + part[0], y + part[1])
    scene = texture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box)
    if rng.random() < 0.5:
        scene = scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.5:
        scene = scene.filter(ImageFilter.BoxBlur(float(rng.uniform(0.6, 3))))
    return scene


def draw_foreground(rng: np.random.Generator, scene: Image.Image, habitat: str) -> None:
    """A twig where there are trees, grass blades elsewhere, between camera and specimen."""
    layer = Image.new("RGBA", (WIDTH * 2, HEIGHT * 2))
    draw = ImageDraw.Draw(layer)
    if habitat in SHADED:
        start, end = rng.uniform(-0.1, 1.1, (2, 2)) * layer.size
        middle = (start + end) / 2 + rng.normal(0, 60, 2)
        t = np.linspace(0, 1, 14)[:, None]
        path = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        bark = shade((88, 70, 54), rng.uniform(0.7, 1.2))
        draw.line(_points(path), fill=bark, width=int(rng.uniform(6, 18)), joint="curve")
    else:
        for _ in range(rng.integers(1, 6)):
            _draw_blade(rng, draw, layer.size, rng.uniform(0.7, 1.15), rng.uniform(8, 24))
    layer = layer.reduce(2).filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 2))))
    scene.paste(layer, (0, 0), layer)


# --- Textures ------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _texture(seed: int, kind: str, variant: int) -> Image.Image:
    textures: dict[str, Callable[[np.random.Generator], Image.Image]] = {
        "bark": _bark,
        "cloth": _cloth,
        "flowers": _flowers,
        "foliage": _foliage,
        "grass": _grass,
        "gravel": _gravel,
        "litter": _litter,
        "moss": _moss,
        "sky": _sky,
        "stone": _stone,
    }
    return textures[kind](np.random.default_rng([seed, *kind.encode(), variant]))


def _bark(rng: np.random.Generator) -> Image.Image:
    ridges = sum(noise(rng, TEXTURE[::-1], n, tall=6) / n**0.4 for n in (36, 80, 190))
    colours = _plain((62, 52, 44))
    mix(colours, (150, 132, 112), step(0.1, 0.42, ridges))
    mix(colours, (126, 134, 108), 0.5 * step(0.5, 0.75, _octaves(rng, (5, 14, 40, 120))))
    return Image.fromarray(colours.astype(np.uint8))


def _cloth(rng: np.random.Generator) -> Image.Image:
    """A white sheet hung up to rest on: folds and weave."""
    weave = 3 * rng.standard_normal(TEXTURE[::-1], dtype=np.float32)
    weave[::3] -= 6
    weave[:, ::3] -= 6
    tone = 176 + 48 * _octaves(rng, (3, 6)) + weave
    colours = np.dstack([tone, tone * 0.985, tone * rng.uniform(0.9, 0.97)])
    return Image.fromarray(np.clip(colours, 0, 255).astype(np.uint8))


def _flowers(rng: np.random.Generator) -> Image.Image:
    """A meadow out of focus: soft greens, stems, discs of two flower colours."""
    image = _ground(rng, (54, 86, 40), (122, 148, 74), (3, 8, 20))
    draw = ImageDraw.Draw(image, "RGBA")
    petals = ((226, 112, 160), (240, 222, 96), (150, 112, 204), (242, 240, 232), (222, 92, 72))
    chosen = [petals[k] for k in rng.choice(len(petals), 2, replace=False)]
    for _ in range(90):
        x, y = rng.uniform(0, TEXTURE)
        if rng.random() < 0.5:
            r = rng.uniform(5, 30)
            box = (x - r, y - r * 0.9, x + r, y + r * 0.9)
            draw.ellipse(box, fill=(*chosen[rng.integers(2)], 150))
        else:
            draw.line((x, y, x + rng.normal(0, 40), y + 160), fill=(78, 112, 52, 160), width=6)
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(3, 8))))


def _foliage(rng: np.random.Generator) -> Image.Image:
    image = _ground(rng, (24, 46, 22), (66, 100, 44), (4, 10))
    greens = ((52, 92, 38), (74, 118, 48), (40, 74, 36), (96, 136, 62))
    image = _strew_leaves(rng, image, greens, 110, (40, 110))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.5, 5))))


def _grass(rng: np.random.Generator) -> Image.Image:
    image = _twice(_ground(rng, (38, 60, 24), (78, 104, 40), (5, 14)))
    draw = ImageDraw.Draw(image)
    for light in np.linspace(0.4, 0.95, 420):
        _draw_blade(rng, draw, image.size, float(light), rng.uniform(5, 15))
    return image.reduce(2).filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.8))))


def _gravel(rng: np.random.Generator) -> Image.Image:
    image = _twice(_ground(rng, (72, 66, 58), (96, 88, 78), (30, 90)))
    draw = ImageDraw.Draw(image)
    t = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for _ in range(1500):
        size = rng.gamma(3, 6) + 6
        outline = np.stack([np.cos(t), np.sin(t) * rng.uniform(0.6, 0.95)], axis=1)
        outline *= size * (1 + 0.12 * rng.random((14, 1)))
        stone = outline @ rotation(rng.uniform(0, 360)).T
        at = rng.uniform(0, image.size)
        grey = shade((158, 148 + int(rng.normal(0, 4)), 132), rng.uniform(0.55, 1.2))
        draw.polygon(_points(stone + at + (3, 5)), fill=(56, 50, 44))
        draw.polygon(_points(stone + at), fill=shade(grey, 0.86))
        draw.polygon(_points(stone * 0.8 + at - (2, 3)), fill=grey)
    return image.reduce(2)


def _litter(rng: np.random.Generator) -> Image.Image:
    image = _ground(rng, (58, 44, 32), (92, 70, 48), (6, 24, 90))
    browns = (
        (126, 88, 52),
        (98, 64, 38),
        (152, 112, 70),
        (84, 60, 44),
        (138, 96, 72),
        (116, 104, 62),
    )
    return _strew_leaves(rng, image, browns, 260, (30, 74))


def _moss(rng: np.random.Generator) -> Image.Image:
    image = _ground(rng, (52, 70, 28), (118, 134, 58), (60, 150, 340))
    return _strew_leaves(rng, image, ((126, 88, 52), (98, 64, 38)), 14, (20, 48))


def _sky(rng: np.random.Generator) -> Image.Image:
    colours = _plain((176, 200, 222))
    mix(colours, (84, 136, 196), np.linspace(1, 0, TEXTURE[1], dtype=np.float32)[:, None])
    clouds = step(rng.uniform(0.42, 0.55), 0.75, _octaves(rng, (3, 7, 16, 40)))
    mix(colours, (220, 224, 228), clouds)
    return Image.fromarray(colours.astype(np.uint8))


def _stone(rng: np.random.Generator) -> Image.Image:
    warm = int(rng.uniform(-12, 16))
    dark, light = (96 + warm, 92, 88), (164 + warm, 158, 150)
    colours = np.array(_ground(rng, dark, light, (4, 12, 40, 160, 360)), dtype=np.float32)
    lichen = ((176, 178, 146), (186, 156, 96))[rng.integers(2)]
    mix(colours, lichen, 0.35 * step(0.53, 0.62, _octaves(rng, (8, 22, 60, 150))))
    image = _twice(Image.fromarray(colours.astype(np.uint8)))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 6)):
        way = rng.normal(0, 14, (60, 2)).cumsum(axis=0) + np.outer(
            np.arange(60), rng.normal(0, 14, 2)
        )
        draw.line(_points(way + rng.uniform(0, image.size)), fill=(66, 62, 60), width=4)
    return image.reduce(2)


def _strew_leaves(
    rng: np.random.Generator,
    image: Image.Image,
    colours: tuple[Colour, ...],
    count: int,
    lengths: tuple[int, int],
) -> Image.Image:
    """Leaves lying over one another, each with its shadow, spine, veins and a darker half."""
    image = _twice(image)
    draw = ImageDraw.Draw(image)
    t = np.linspace(0, 1, 15)
    for _ in range(count):
        across = rng.uniform(0.15, 0.3) * np.sin(np.pi * t**0.85) * (1 + 0.12 * rng.random(15))
        matrix = 2 * rng.uniform(*lengths) * rotation(rng.uniform(0, 360)).T
        at = rng.uniform(0, image.size)
        upper = np.stack([t - 0.5, across], axis=1) @ matrix + at
        lower = np.stack([t - 0.5, -across], axis=1) @ matrix + at
        spine = np.stack([t - 0.5, 0 * t], axis=1) @ matrix + at
        colour = shade(colours[rng.integers(len(colours))], rng.uniform(0.7, 1.25))
        outline = np.concatenate([upper, lower[::-1]])
        draw.polygon(_points(outline + np.array((5, 8))), fill=shade(colour, 0.45))
        draw.polygon(_points(np.concatenate([upper, spine[::-1]])), fill=colour)
        draw.polygon(_points(np.concatenate([lower, spine[::-1]])), fill=shade(colour, 0.86))
        draw.line(_points(spine), fill=shade(colour, 0.66), width=3)
        for k in (3, 5, 7, 9, 11):
            for side in (upper, lower):
                vein = np.stack([spine[k - 2], 0.2 * spine[k - 2] + 0.8 * side[k]])
                draw.line(_points(vein), fill=shade(colour, 0.72), width=2)
    return image.reduce(2)


def _draw_blade(
    rng: np.random.Generator,
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    light: float,
    width: float,
) -> None:
    """One grass blade growing from below: a curve that narrows to its tip."""
    greens = ((96, 138, 52), (126, 150, 66), (82, 120, 60), (158, 152, 86))
    x, y = rng.uniform(-0.1, 1.1) * size[0], rng.uniform(0.5, 1.3) * size[1]
    length, lean, bend = size[1] * rng.uniform(0.45, 1.1), rng.normal(0, 0.25), rng.normal(0, 0.35)
    t = np.linspace(0, 1, 12)
    spine = np.stack(
        [x + length * (lean * t + bend * t * t), y - length * t * (1 - 0.15 * t)], axis=1
    )
    half = np.stack([width / 2 * (1 - t**1.6), 0 * t], axis=1)
    outline = np.concatenate([spine - half, (spine + half)[::-1]])
    draw.polygon(_points(outline), fill=shade(greens[rng.integers(4)], light))


def _ground(
    rng: np.random.Generator, dark: Colour, light: Colour, cells: tuple[int, ...]
) -> Image.Image:
    colours = _plain(dark)
    mix(colours, light, step(0.2, 0.8, _octaves(rng, cells)))
    return Image.fromarray(colours.astype(np.uint8))


def _plain(colour: Colour) -> Field:
    colours = np.empty((TEXTURE[1], TEXTURE[0], 3), dtype=np.float32)
    colours[:] = colour
    return colours


def _octaves(rng: np.random.Generator, cells: tuple[int, ...]) -> Field:
    """Noise with structure at several sizes, from 0 to 1."""
    weights = [1.7**-k for k in range(len(cells))]
    layers = [noise(rng, TEXTURE[::-1], n) for n in cells]
    return np.average(layers, axis=0, weights=weights).astype(np.float32)


def _twice(image: Image.Image) -> Image.Image:
    """Twice as large, to draw with smooth edges and reduce afterwards."""
    return image.resize((image.width * 2, image.height * 2), Image.Resampling.BILINEAR)


def _points(path: NDArray[np.float64]) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in path]


# --- Brushes -------------------------------------------------------------------------------------


def mix(colours: Field, colour: Colour, weight: Field) -> None:
    """Paint one colour over the pixels, as opaque as the weight (0 to 1) says."""
    paint = np.array(colour, dtype=np.float32)
    colours += (paint - colours) * np.asarray(weight, dtype=np.float32)[..., None]


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """A colour between two, `share` of the way to the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def shade(colour: Colour, light: float) -> Colour:
    """The colour in more (above 1) or less light."""
    red, green, blue = (min(255, round(level * light)) for level in colour)
    return red, green, blue


def step(low: float, high: float, values: Field) -> Field:
    """0 below low, 1 above high, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def noise(rng: np.random.Generator, shape: tuple[int, ...], cells: int, tall: int = 1) -> Field:
    """Smooth noise from 0 to 1: `cells` bumps across, each `tall` times as high as wide."""
    rows = max(2, round(cells * shape[0] / shape[1] / tall))
    grid = Image.fromarray(rng.random((rows, cells), dtype=np.float32))
    smooth = grid.resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.asarray(smooth).clip(0, 1)


def rotation(degrees: float) -> Field:
    """The matrix that turns a column vector, from its first axis towards its second."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]], dtype=np.float32)
