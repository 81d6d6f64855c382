"""The learning rate range test: the rate grows with each step until the loss explodes.

Smith (2017), doi:10.1109/WACV.2017.58.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from pipeline.base.errors import SlidemillError
from pipeline.training.step import Learner, NotFiniteError

_EXPLODED = 4.0  # times the lowest loss
_MEMORY = 0.9  # of the smoothed loss, per step
_MARGIN = 10.0  # below the lowest loss, and between the ends of a range


def try_rates(learner: Learner, batches: Iterator[list[Tensor]], rates: Sequence[float]) -> list[float]:
    """Make a step at each learning rate; return the loss before each, up to the one that explodes.

    Parameters
    ----------
    learner : Learner
        Not trained yet; spoilt afterwards.
    rates : sequence of float
        Rising.
    """
    losses: list[float] = []
    for number, rate in enumerate(tqdm(rates, disable=None, desc="find-lr")):
        try:
            losses.append(learner.step(next(batches), rate=rate, number=number)["loss"])
        except NotFiniteError:
            break
        if smooth(losses)[-1] > _EXPLODED * smooth(losses).min():
            break
    return losses


def smooth(losses: Sequence[float]) -> NDArray[np.float64]:
    """Return the exponential moving average of losses, with weight 0.9 for what came before."""
    means, mean = [], 0.0
    for step, loss in enumerate(losses, start=1):
        mean = _MEMORY * mean + (1 - _MEMORY) * loss
        means.append(mean / (1 - _MEMORY**step))
    return np.array(means)


def usable_range(rates: Sequence[float], losses: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and the highest learning rate that a training may well have.

    The ends are two rules of thumb: the rate at which the smoothed loss falls fastest on a logarithmic axis, and a
    tenth of the rate at which it is lowest, since a rate that holds for some steps may diverge in many. If they differ
    by more than a factor of ten, the range ends there.

    Raises
    ------
    SlidemillError
        If the loss never falls.
    """
    means = smooth(losses)
    lowest = int(means.argmin())
    if lowest < 2:
        raise SlidemillError("the loss never falls; are the labels those of the images?")
    slopes = np.gradient(means[: lowest + 1], np.log(rates[: lowest + 1]))
    low, high = sorted((float(rates[int(slopes.argmin())]), rates[lowest] / _MARGIN))
    return low, min(high, _MARGIN * low)
