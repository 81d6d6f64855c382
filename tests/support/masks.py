"""Masks that tests make, and their objects by scikit-image."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
import skimage.measure
from skimage.measure import label
from skimage.morphology import local_maxima, reconstruction
from skimage.segmentation import watershed

NECK = 0.85


def blobs(generator, shape, sigma=3):
    noise = scipy.ndimage.gaussian_filter(generator.random(shape), sigma)
    return np.digitize(noise, np.quantile(noise, [0.5, 0.75])).astype(np.uint8)


def landscape(generator, shape, *, sigma, highest, classes=1):
    """Smooth random heights, and blobs of classes."""
    field = scipy.ndimage.gaussian_filter(generator.random(shape), sigma)
    field = (field - field.min()) / max(np.ptp(field), 1e-9)
    kinds = scipy.ndimage.gaussian_filter(generator.random((classes + 1, *shape)), (0, 2, 2)).argmax(axis=0)
    return np.rint(field * highest).astype(np.uint16), kinds.astype(np.uint8)


def numbered(classes):
    return skimage.measure.label(classes, background=0, connectivity=1).astype(np.uint32)


def signed_area(ring):
    x, y = np.asarray(ring).T
    return (x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2


def split_the_whole(labels, probabilities, neck=NECK):
    """Split all objects of a class at once with scikit-image; number the parts by first pixel."""
    parts = np.zeros(labels.shape, np.int64)
    for kind in range(1, len(probabilities)):
        inside = labels == kind
        distance = scipy.ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        depth = distance * np.clip(probabilities[kind].astype(np.float64), 0.5, 1)
        markers = np.zeros(labels.shape, np.int64)
        objects = label(inside, connectivity=1)
        for number, box in enumerate(scipy.ndimage.find_objects(objects), start=1):  # a marker is of one object
            own = np.where(objects[box] == number, depth[box], 0)
            own = np.pad(own, 1)
            maxima = label(local_maxima(reconstruction(own * neck, own)))[1:-1, 1:-1]
            for maximum in range(1, maxima.max() + 1):
                deepest = np.argmax(np.where(maxima == maximum, depth[box], -1))
                markers[box].flat[deepest] = markers.max() + 1
        landscape = -depth
        landscape[markers > 0] = markers[markers > 0] - markers.max() - 1 - depth.max(initial=0)
        flooded = watershed(landscape, markers, mask=inside)
        parts[inside] = flooded[inside] + parts.max()
    return by_first_pixel(parts)


def by_first_pixel(numbers):
    """Number anew, from 1 in the order of first pixels; 0 stays."""
    old, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    rank = np.zeros(len(old), np.int64)
    rank[np.argsort(np.where(old == 0, -1, first))] = np.arange(len(old)) + (old[0] != 0)
    return rank[inverse].reshape(numbers.shape)
