"""Refine class probabilities by the image: a fully connected conditional random field, in blocks.

The energy of a labelling is the sum of the unary energies, minus the logarithm of what the network says, and, for each
pair of pixels of different classes, of a weight that is higher the nearer they are and the more they look alike. Mean
field approximates its distribution by one that is independent in each pixel: every iteration adds to the log odds of
each pixel what its neighbours believe.

Neighbours are at most a radius away, so that an iteration carries a pixel that far, and no further: a block with as
many pixels around it as all iterations reach has the result of the whole image. Each pixel adds up its neighbours in
one order, whatever the block, so that it has it bit for bit. Beyond the border of the image there is nothing: pixels
there have fewer neighbours, and nothing is mirrored.

References
----------
Krähenbühl & Koltun (2011), arXiv:1210.5644; Krähenbühl & Koltun (2013), Parameter learning and convergent inference for
dense random fields, ICML; the limited radius: Teichmann & Cipolla (2018), arXiv:1805.04777.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.base.arrays import Array, blocks, widened
from pipeline.runtime.parallel_blocks import in_order
from pipeline.runtime.scratch import scratch_array
from pipeline.settings.crf import CrfConfig

_BLOCK_PX = (512, 512)
_LEAST = 2.0**-24  # the lowest probability above 0 that a prediction stores
_LARGEST = 1e18  # its square is a number in float32

Floats = NDArray[np.floating[Any]]
Region = tuple[slice, slice]


class _Pair(NamedTuple):
    """Two pixels: where the second lies, seen from the first, and the weights of the pair if they look the same."""

    down: int
    across: int
    smoothness: float
    appearance: float

    def regions(self, rows: int, columns: int) -> tuple[Region, Region]:
        """Return where the first and where the second pixels of all such pairs of an image lie."""
        left, right = max(0, -self.across), max(0, self.across)
        first = slice(0, rows - self.down), slice(left, columns - right)
        return first, (slice(self.down, rows), slice(right, columns - left))


def refine_classes(
    probabilities: Array, image: Array, config: CrfConfig, *, scratch: Path, block_px: tuple[int, int] = _BLOCK_PX
) -> Array:
    """Return the most probable class of every pixel after mean field.

    Parameters
    ----------
    probabilities : (classes, rows, columns) array of float
        Of the network; float16, as predictions store them, is computed with in float32.
    image : (channels, rows, columns) array of float
        Normalized; read by block.
    scratch : Path
        A folder for the result; it must exist as long as that.
    block_px : (rows, columns)
        Largest block. Memory is that of a few blocks with what the field reaches around them.

    Returns
    -------
    (rows, columns) uint8 array
    """
    shape = probabilities.shape[1:]
    classes = scratch_array(scratch / "crf.zarr", shape, "uint8", chunks=block_px)

    def refine(region: Region) -> None:
        classes[region] = beliefs_in(region, probabilities, image, config).argmax(axis=0).astype(np.uint8)

    for _ in in_order(partial(refine, region) for region in blocks(shape, block_px)):
        pass
    return classes


def beliefs_in(region: Region, probabilities: Array, image: Array, config: CrfConfig) -> Floats:
    """Return the probabilities of a region after mean field of the whole image; see :func:`mean_field`."""
    around, own = widened(region, config.reach_px, probabilities.shape[1:])
    beliefs = mean_field(np.asarray(probabilities[:, *around]), np.asarray(image[:, *around]), config)
    return beliefs[:, *own]


def mean_field(probabilities: Floats, image: Floats, config: CrfConfig) -> Floats:
    """Return the probability of each class after all iterations of mean field.

    With the probabilities of the network as p and as the first beliefs q, each iteration sets

        q_i(c) ~ p_i(c) exp(sum over the neighbours j of i of k_ij q_j(c))

    where k_ij is the sum of two kernels: ``smoothness`` times a Gaussian of the distance of i and j, and ``appearance``
    times a Gaussian of their distance and one of the difference of their intensities. Each Gaussian of distance is
    divided by its sum over the disc, without i.

    Parameters
    ----------
    probabilities : (classes, rows, columns) float array
        They need not add up to 1.
    image : (channels, rows, columns) float array
        Normalized.

    Returns
    -------
    (classes, rows, columns) float array
        float64 for probabilities in float64, else float32.
    """
    kind = np.result_type(probabilities.dtype, np.float32)
    likely = np.log(np.maximum(probabilities.astype(kind), _LEAST))
    # Probabilities add up to 1, so what counts are log odds to the first class, and differences to its probability.
    network = likely[1:] - likely[:1]
    width = math.sqrt(2) * config.appearance_intensity
    looks = np.clip(image.astype(kind), -_LARGEST * width, _LARGEST * width) / width
    pairs = [pair for pair in _pairs(config) if pair.down < looks.shape[1] and abs(pair.across) < looks.shape[2]]
    odds = network
    for _ in range(config.iterations):
        beliefs = _of_odds(odds)
        odds = network + _messages(beliefs[1:] - beliefs[:1], looks, pairs)
    return _of_odds(odds)


def _of_odds(odds: Floats) -> Floats:
    """Return the probabilities of all classes from the log odds of all but the first to that."""
    largest = np.maximum(odds.max(axis=0), 0)
    shares: Floats = np.exp(np.concatenate([np.zeros_like(odds[:1]), odds]) - largest)
    shares /= shares.sum(axis=0)
    return shares


def _pairs(config: CrfConfig) -> Iterator[_Pair]:
    """Yield half of the disc, row by row: each pair of pixels once."""
    smoothness, appearance = (weight * kernel for weight, kernel in config.kernels)
    radius = config.radius_px
    for down in range(radius + 1):
        for across in range(-radius if down else 1, radius + 1):
            if down**2 + across**2 <= radius**2:
                place = radius + down, radius + across
                yield _Pair(down, across, float(smoothness[place]), float(appearance[place]))


def _messages(differences: Floats, looks: Floats, pairs: Iterable[_Pair]) -> Floats:
    """Return the sum over the neighbours of each pixel of weight times difference."""
    messages, spare = np.zeros_like(differences), np.empty((2, looks[0].size), looks.dtype)
    for pair in pairs:
        own, other = pair.regions(*looks.shape[1:])
        shape = looks[0][own].shape
        weights, product = (one[: math.prod(shape)].reshape(shape) for one in spare)
        _weigh(looks, pair, weights, product)
        for message, difference in zip(messages, differences, strict=True):
            message[own] += np.multiply(weights, difference[other], out=product)
            message[other] += np.multiply(weights, difference[own], out=product)
    return messages


def _weigh(looks: Floats, pair: _Pair, out: Floats, spare: Floats) -> None:
    """Write the weights of all such pairs into ``out``."""
    if not pair.appearance:
        out[:] = pair.smoothness
        return
    own, other = pair.regions(*looks.shape[1:])
    np.subtract(looks[0][own], looks[0][other], out=out)
    np.square(out, out=out)
    for channel in looks[1:]:
        np.subtract(channel[own], channel[other], out=spare)
        out += np.square(spare, out=spare)
    np.subtract(math.log(pair.appearance), out, out=out)
    np.exp(out, out=out)
    out += pair.smoothness
