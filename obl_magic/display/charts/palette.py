"""Every colour, chosen once. Each has the same contrast (4.3) on white and on Jupyter's dark background.

No colour has more on both; words need 4.5, so :func:`ink` brings theirs nearer to the page's own text.
"""

TRAIN = "#267bdc"
VALIDATION = "#c85a10"
GOOD = "#288a53"
BAD = "#dd413c"
CAUTION = "#a76f0e"
ACTIVE = TRAIN
NEUTRAL = "#757a84"
LINE = "rgba(128,128,128,.28)"
GROUND = "rgba(128,128,128,.18)"


def ink(colour: str, of: str = "color") -> str:
    """The style of words in a colour: darker on a light page, lighter on a dark one.

    Args:
        colour: of this palette; as it is where a browser cannot mix.
        of: the property, ``color`` or a picture's ``fill``.
    """
    return f"{of}:{colour};{of}:color-mix(in srgb,{colour} 76%,currentColor)"
