"""The boundary weight map by its formula, and random objects."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import skimage.draw

PUBLISHED = {"boundary_weight": 10.0, "sigma_px": 5.0}


def direct(objects, classes, class_weight, boundary_weight, sigma_px):
    """Equation 2 of the paper on the background, with one distance transform of the whole image per object."""
    ids = [index for index in np.unique(objects) if index > 0]
    if len(ids) < 2:
        return class_weight[classes]
    distances = np.sort([scipy.ndimage.distance_transform_edt(objects != index) for index in ids], axis=0)
    term = boundary_weight * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma_px**2))
    return class_weight[classes] + np.where(objects == 0, term, 0)


def random_objects(seed, shape):
    """Return round objects of all sizes, some beneath others, some at the border."""
    generator = np.random.default_rng(seed)
    objects = np.zeros(shape, dtype=np.int32)
    for index in range(1, 40):
        centre, radius = generator.integers(0, shape, 2), generator.integers(2, 25)
        objects[skimage.draw.disk(centre, radius, shape=shape)] = index
    return objects
