"""What a test sees of the report page in a browser (``tab``: a page of Playwright)."""

import re

import numpy as np


def widths(pictures):
    """Return the widths of the pictures of elements, once they are loaded; 0 where one may not be."""
    script = "images => Promise.all(images.map(image => image.decode().then(() => image.naturalWidth, () => 0)))"
    return pictures.evaluate_all(script)


def shown(tab, column="sample"):
    """Return the content of a column of all rows that pass the filters, from the top; few of them are drawn."""
    script = (
        "name => order.map(place => data.cells[place][columns.findIndex(header => header.textContent.trim() === name)])"
    )
    return tab.evaluate(script, column)


def rows(tab):
    """The rows that are drawn."""
    return tab.locator("#samples tbody tr[data-place]")


def focused(tab):
    return tab.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")


def luminance(tab, selector, name):
    """Return the relative luminance of a colour of an element."""
    colour = tab.locator(selector).first.evaluate("(element, name) => getComputedStyle(element)[name]", name)
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))
