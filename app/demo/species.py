"""The species of the demo: what tells one synthetic butterfly from another, in numbers.

Groups share a build and a ground colour, so that most species have look-alikes. The rare one,
"ringed amber", differs from the common "banded amber" by a pair of eyespots on the hindwing.
"""

from dataclasses import dataclass, replace

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Shape:
    """A wing's outline: radius around the hinge at angles in degrees, 0 away from the body."""

    angles: tuple[float, ...]
    radii: tuple[float, ...]
    scallop: float = 0.0


@dataclass(frozen=True)
class Eyespot:
    """A ringed spot: `along` from trailing (0) to leading edge (1), `out` from hinge to margin."""

    wing: str
    along: float
    out: float
    radius: float
    ring: Colour
    core: Colour | None = None


@dataclass(frozen=True)
class Species:
    """Everything that tells one drawn species from another."""

    name: str
    fore: Shape
    hind: Shape
    base: Colour
    outer: Colour
    under: Colour
    margin: Colour = (40, 28, 22)
    margin_width: float = 0.06
    size: float = 1.0
    band: Colour | None = None
    band_out: float = 0.6
    band_width: float = 0.05
    band_broken: float = 0.0
    stripes: int = 0
    stripe: Colour = (35, 28, 24)
    spots: Colour | None = None
    spots_out: float = 0.75
    spots_radius: float = 0.03
    margin_dots: Colour | None = None
    apex: Colour | None = None
    apex_spots: bool = False
    bars: bool = False
    veins: float = 0.25
    eyespots: tuple[Eyespot, ...] = ()


TRIANGLE = Shape((-14, 0, 14, 30, 44, 52, 60), (0.56, 0.62, 0.69, 0.82, 0.98, 1.0, 0.86))
HOOKED = Shape((-14, 0, 12, 24, 36, 46, 54, 61), (0.54, 0.64, 0.67, 0.69, 0.8, 1.0, 1.02, 0.86))
ROUNDED = Shape((-16, 0, 15, 30, 42, 52, 62), (0.56, 0.66, 0.76, 0.85, 0.9, 0.88, 0.76))
LONG = Shape((-12, 0, 10, 22, 34, 44, 52), (0.5, 0.56, 0.66, 0.86, 1.06, 1.1, 0.95))
FAN = Shape((-98, -80, -60, -40, -20, 0, 14), (0.52, 0.64, 0.72, 0.74, 0.72, 0.66, 0.52))
SCALLOPED = replace(FAN, scallop=0.035)
DROP = Shape((-96, -82, -66, -48, -28, -6, 12), (0.5, 0.7, 0.82, 0.74, 0.66, 0.6, 0.5))
TAILED = Shape(
    (-100, -86, -78, -74, -70, -66, -58, -40, -20, 0, 12),
    (0.5, 0.62, 0.74, 1.16, 1.2, 0.8, 0.74, 0.72, 0.68, 0.62, 0.52),
    0.02,
)

AMBER, DEEP_AMBER, BUFF = (226, 146, 44), (196, 96, 28), (196, 166, 120)
SOOT, CREAM, WHITE = (42, 28, 20), (250, 232, 178), (246, 244, 236)
BROWN, RUST, SKY = (112, 78, 52), (168, 74, 34), (92, 150, 222)

_AMBER = Species("", TRIANGLE, SCALLOPED, AMBER, DEEP_AMBER, BUFF, SOOT, 0.075, bars=True)
_BLUE = Species(
    "",
    ROUNDED,
    FAN,
    SKY,
    (64, 110, 200),
    (186, 184, 182),
    (36, 40, 66),
    0.05,
    size=0.78,
    veins=0.16,
)
_PALE = Species(
    "", TRIANGLE, FAN, WHITE, (238, 236, 220), (226, 222, 176), (80, 78, 74), 0.02, veins=0.12
)
_TAILED = Species(
    "",
    LONG,
    TAILED,
    (244, 222, 120),
    (240, 208, 92),
    (240, 224, 160),
    (30, 28, 32),
    0.09,
    size=1.12,
)
_BROWN = Species(
    "", ROUNDED, FAN, BROWN, (134, 98, 64), (150, 124, 92), (74, 52, 38), 0.03, size=0.92, veins=0.2
)
_DARK = Species(
    "", HOOKED, SCALLOPED, (38, 32, 36), (46, 36, 38), (84, 66, 58), (24, 20, 24), 0.05, size=1.05
)
_GREEN = Species(
    "", HOOKED, DROP, (150, 186, 84), (122, 168, 78), (156, 176, 110), (86, 110, 56), 0.025
)


def _eyespots(
    out: float, radius: float, ring: Colour, *places: tuple[str, float]
) -> tuple[Eyespot, ...]:
    return tuple(Eyespot(wing, along, out, radius, ring) for wing, along in places)


# In order of commonness; the numbers in the names are only names.
SPECIES: tuple[Species, ...] = (
    replace(_BROWN, name="Synthetic 01 – plain brown", band=(160, 116, 70), band_out=0.72),
    replace(
        _PALE,
        name="Synthetic 02 – dark-tipped white",
        apex=(62, 60, 62),
        spots=(70, 68, 68),
        spots_out=0.6,
    ),
    replace(
        _AMBER,
        name="Synthetic 07 – banded amber",
        band=CREAM,
        band_out=0.68,
        spots=SOOT,
        spots_out=0.84,
    ),
    replace(_BLUE, name="Synthetic 03 – bright blue"),
    replace(
        _BROWN,
        name="Synthetic 04 – ringed brown",
        eyespots=_eyespots(
            0.78, 0.075, (214, 160, 82), ("fore", 0.8), ("hind", 0.3), ("hind", 0.5)
        ),
    ),
    replace(
        _AMBER, name="Synthetic 05 – spotted amber", spots=SOOT, spots_out=0.7, spots_radius=0.04
    ),
    replace(_TAILED, name="Synthetic 06 – striped swallowtail", stripes=4),
    replace(
        _DARK,
        name="Synthetic 08 – red-banded black",
        band=(214, 66, 36),
        band_out=0.58,
        band_width=0.085,
        apex_spots=True,
    ),
    replace(
        _PALE,
        name="Synthetic 09 – lemon",
        base=(246, 226, 92),
        outer=(240, 212, 66),
        under=(228, 214, 120),
    ),
    replace(
        _BLUE,
        name="Synthetic 10 – dotted blue",
        spots=(30, 34, 60),
        spots_out=0.72,
        spots_radius=0.032,
        margin_dots=WHITE,
    ),
    replace(_GREEN, name="Synthetic 11 – leaf green"),
    replace(_AMBER, name="Synthetic 12 – lined amber", stripes=5, bars=False, stripe=(92, 46, 20)),
    replace(
        _BROWN,
        name="Synthetic 13 – white-barred brown",
        base=(78, 56, 46),
        outer=(70, 50, 42),
        band=WHITE,
        band_width=0.06,
        band_out=0.6,
    ),
    replace(_PALE, name="Synthetic 14 – orange-tipped white", apex=(240, 140, 36)),
    replace(
        _DARK,
        name="Synthetic 15 – blue-washed black",
        outer=(40, 92, 176),
        band=(74, 138, 220),
        band_out=0.7,
        band_width=0.12,
        margin_dots=WHITE,
    ),
    replace(
        _TAILED,
        name="Synthetic 16 – black swallowtail",
        base=(34, 32, 38),
        outer=(44, 40, 48),
        under=(70, 62, 62),
        spots=(244, 214, 96),
        spots_out=0.68,
        spots_radius=0.045,
        margin_dots=(244, 214, 96),
    ),
    replace(
        _BLUE,
        name="Synthetic 17 – copper",
        base=(232, 118, 40),
        outer=(220, 96, 34),
        spots=SOOT,
        spots_out=0.66,
        spots_radius=0.03,
        margin=(70, 48, 40),
        margin_width=0.08,
    ),
    replace(
        _DARK,
        name="Synthetic 18 – peacock",
        base=RUST,
        outer=(150, 56, 30),
        under=(58, 46, 42),
        bars=True,
        eyespots=(
            Eyespot("fore", 0.78, 0.78, 0.12, (238, 206, 104), (86, 120, 190)),
            Eyespot("hind", 0.47, 0.7, 0.13, (150, 170, 206), (86, 120, 190)),
        ),
    ),
    replace(
        _GREEN,
        name="Synthetic 19 – pale moon",
        fore=LONG,
        hind=TAILED,
        base=(196, 226, 186),
        outer=(186, 220, 176),
        under=(190, 214, 172),
        margin=(150, 110, 120),
        size=1.15,
        eyespots=_eyespots(0.52, 0.05, (240, 230, 160), ("fore", 0.7), ("hind", 0.5)),
    ),
    replace(
        _PALE,
        name="Synthetic 20 – striped white",
        stripes=6,
        stripe=(48, 46, 50),
        margin_width=0.05,
    ),
    replace(
        _BROWN,
        name="Synthetic 21 – violet-flushed brown",
        base=(96, 70, 92),
        outer=(120, 84, 150),
        band=WHITE,
        band_broken=0.6,
        band_out=0.62,
        size=1.08,
    ),
    replace(
        _AMBER,
        name="Synthetic 24 – ringed amber",
        band=CREAM,
        band_out=0.68,
        spots=SOOT,
        spots_out=0.84,
        eyespots=_eyespots(0.66, 0.078, (246, 226, 150), ("hind", 0.28), ("hind", 0.52)),
    ),
    replace(
        _DARK,
        name="Synthetic 22 – crimson",
        base=(176, 34, 44),
        outer=(150, 26, 40),
        under=(120, 60, 56),
        spots=(28, 22, 26),
        spots_out=0.62,
        spots_radius=0.045,
    ),
    replace(
        _BLUE,
        name="Synthetic 23 – silver blue",
        base=(178, 196, 214),
        outer=(158, 180, 206),
        margin=(96, 104, 122),
        margin_width=0.09,
    ),
    replace(
        _GREEN,
        name="Synthetic 25 – emerald",
        base=(24, 130, 104),
        outer=(18, 100, 96),
        under=(92, 120, 92),
        band=(150, 232, 196),
        band_out=0.6,
        margin=(16, 40, 44),
        margin_width=0.08,
    ),
    replace(
        _TAILED,
        name="Synthetic 26 – rosy swallowtail",
        base=(240, 196, 190),
        outer=(232, 164, 170),
        under=(236, 200, 190),
        stripes=2,
        margin=(70, 36, 48),
    ),
)
RARE = next(i for i, species in enumerate(SPECIES) if "ringed amber" in species.name)
LOOKALIKE = next(i for i, species in enumerate(SPECIES) if "banded amber" in species.name)
