"""How numbers stand in a sentence: thousands apart by a thin space, nouns in the right number."""

THIN_SPACE = "\u202f"  # narrow and unbreakable


def spaced(value: float) -> str:
    """A whole number: 8725 -> 8 725, with a thin space."""
    return f"{value:,.0f}".replace(",", THIN_SPACE)


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun: 1 image, 8 725 images."""
    return f"{spaced(count)} {one if count == 1 else many or one + 's'}"


def in_percent(share: float) -> str:
    """A share before a percent sign, a small one with a decimal: 0.19 -> 19, 0.022 -> 2.2."""
    return f"{100 * share:.1f}".removesuffix(".0") if share < 0.0995 else f"{100 * share:.0f}"
