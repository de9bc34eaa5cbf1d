"""Every colour, chosen once. Each has the same contrast (4.3) on white and on Jupyter's dark background."""

TRAIN = "#267bdc"
VALIDATION = "#c85a10"
GOOD = "#288a53"
BAD = "#dd413c"
CAUTION = "#a76f0e"
ACTIVE = TRAIN
NEUTRAL = "#757a84"
LINE = "rgba(128,128,128,.28)"
GROUND = "rgba(128,128,128,.18)"
