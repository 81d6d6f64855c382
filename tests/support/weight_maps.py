"""The boundary weight map by its formula, and random objects."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import skimage.draw

PUBLISHED = {"boundary_weight": 10.0, "sigma_px": 5.0}


def direct(objects, classes, class_weight, boundary_weight, sigma_px):
    """Equation 2 of the paper on the background, with one distance transform of the whole image per object."""
    nearest = np.full((2, *objects.shape), np.inf)
    for index in np.unique(objects[objects > 0]):  # not every number is in use
        distance = scipy.ndimage.distance_transform_edt(objects != index)
        nearest = np.sort([*nearest, distance], axis=0)[:2]
    term = boundary_weight * np.exp(-((nearest[0] + nearest[1]) ** 2) / (2 * sigma_px**2))
    return class_weight[classes] + np.where(objects == 0, term, 0)


def random_objects(seed, shape):
    """Return round objects of all sizes, some beneath others, some at the border."""
    generator = np.random.default_rng(seed)
    objects = np.zeros(shape, dtype=np.int32)
    for index in range(1, 40):
        centre, radius = generator.integers(0, shape, 2), generator.integers(2, 25)
        objects[skimage.draw.disk(centre, radius, shape=shape)] = index
    return objects
