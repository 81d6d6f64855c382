"""Pairs of label maps to test metrics on: random blobs, shifted copies, empty, full and single-pixel maps."""

from __future__ import annotations

import numpy as np
import scipy.ndimage

SHAPE = (37, 43)


def blobs(generator: np.random.Generator, *, values: int = 1) -> np.ndarray:
    """A map of values 0 to ``values``: thresholded smooth noise, uint8."""
    noise = scipy.ndimage.gaussian_filter(generator.normal(size=SHAPE), generator.uniform(0.7, 3))
    levels = np.quantile(noise, np.linspace(generator.uniform(0.2, 0.8), 1, values + 1)[:-1])
    return np.digitize(noise, levels).astype(np.uint8)


def pairs(count: int = 200, *, values: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of truth and prediction; among them empty, full and single-pixel ones."""
    generator = np.random.default_rng(0)
    made = []
    for number in range(count):
        truth = blobs(generator, values=values)
        predicted = truth.copy() if number % 5 == 0 else blobs(generator, values=values)
        if number % 3 == 0:  # as a network errs: shifted, a bit wrong
            predicted = np.roll(truth, generator.integers(-3, 4, 2), (0, 1))
            predicted[generator.random(SHAPE) < 0.02] = 0
        made.append((truth, predicted))
    empty, full, pixel = np.zeros(SHAPE, np.uint8), np.ones(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    pixel[11, 20] = 1
    special = [empty, full, pixel, np.roll(pixel, 5)]
    special_pairs = [(first, second) for first in special for second in special]
    return made[: count - len(special_pairs)] + special_pairs
