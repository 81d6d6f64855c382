"""Colours of classes and errors in pictures, legends and figures of the review page.

All are from Okabe and Ito (2008): colour-blind readers can tell them apart, also on grey and on stained tissue.
"""

from __future__ import annotations

RGB = tuple[int, int, int]

_CLASS_RGB: tuple[RGB, ...] = (
    (0, 158, 115),  # bluish green
    (230, 159, 0),  # orange
    (204, 121, 167),  # reddish purple
    (0, 114, 178),  # blue
    (240, 228, 66),  # yellow
    (86, 180, 233),  # sky blue
    (213, 94, 0),  # vermillion
)
BACKGROUND_RGB: RGB = (128, 128, 128)

EXTRA_RGB: RGB = (213, 94, 0)
MISSED_RGB: RGB = (86, 180, 233)
CONFUSED_RGB: RGB = (240, 228, 66)
PREDICTED_RGB: RGB = (230, 159, 0)  # outlines of objects
TRUTH_RGB: RGB = (86, 180, 233)
MARKED_RGB: RGB = (240, 228, 66)  # dots of selected objects, with a black rim


def class_rgb(index: int) -> RGB:
    """Return the colour of a class: grey for class 0, then seven colours, then the same ones darker."""
    if index == 0:
        return BACKGROUND_RGB
    repetition, place = divmod(index - 1, len(_CLASS_RGB))
    red, green, blue = (round(part * 0.6**repetition) for part in _CLASS_RGB[place])
    return red, green, blue


def css(colour: RGB) -> str:
    """Return a colour in CSS: ``#009e73``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
