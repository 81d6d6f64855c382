"""The figures of the report, as SVG: learning curves, Dice by class, networks with intervals, confusion.

Drawn without pyplot, so there is no global state and no display.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.base.palette import class_rgb, css
from pipeline.metrics.names import HEADLINE

_SIZE_IN = (7.2, 3.6)
_MOST_SHAPES = 2000  # dots; more are pixels in the figure
_LINES = ("-", "--", ":", "-.")  # the next style when the seven colours repeat


def learning_curves(histories: dict[str, pd.DataFrame]) -> str:
    """Draw the foreground Dice on the held-back images over the minutes of training, a line per network."""
    figure, axes = _figure()
    for number, (model, history) in enumerate(histories.items()):
        minutes = history["elapsed_s"] / 60
        axes.plot(minutes, history[HEADLINE], _LINES[number // 7 % 4], color=_colour(number), label=model)
    axes.set(xlabel="training, min", ylabel="foreground Dice, held-back images")
    return _svg(figure, axes, empty=not histories)


def dice_by_class(table: pd.DataFrame, classes: list[str]) -> str:
    """Draw the Dice of every sample per class and network, with median and quartiles."""
    figure, axes = _figure()
    models = list(table["model"].unique())
    width, empty = 0.8 / max(len(models), 1), True
    for number, model in enumerate(models):
        for place, label in enumerate(classes):
            scores = table.loc[table["model"] == model, f"dice_{label}"].dropna().to_numpy()
            if len(scores) == 0:
                continue
            empty = False
            centre = place + (number - (len(models) - 1) / 2) * width
            spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(scores)) * width
            colour = _colour(number)
            many = len(table) > _MOST_SHAPES
            axes.scatter(centre + spread, scores, s=9, color=colour, alpha=0.5, linewidths=0, rasterized=many)
            low, median, high = np.percentile(scores, (25, 50, 75))
            axes.vlines(centre, low, high, color="black", linewidth=1.2)
            axes.plot(centre, median, "D", color=colour, markeredgecolor="black", label=model if place == 0 else None)
    axes.set_xticks(range(len(classes)), classes)
    axes.set(ylabel="Dice, a dot per sample", xlim=(-0.6, len(classes) - 0.4))
    return _svg(figure, axes, empty=empty)


def models_with_intervals(cohort: pd.DataFrame) -> str:
    """Draw the mean foreground Dice of every network with its 95 % interval."""
    figure, axes = _figure()
    chosen = cohort[cohort["measure"] == HEADLINE].sort_values("mean")
    places = range(len(chosen))
    axes.hlines(places, chosen["low"], chosen["high"], color="black", linewidth=1.2)
    axes.plot(chosen["mean"], places, "D", color=_colour(0), markeredgecolor="black")
    axes.set_yticks(range(len(chosen)), chosen["model"])
    axes.set(xlabel="foreground Dice, mean over groups, 95 % interval", ylim=(-0.7, max(len(chosen), 1) - 0.3))
    return _svg(figure, axes, empty=chosen.empty, legend=False)


def confusion(table: pd.DataFrame, classes: list[str]) -> str:
    """Draw how the pixels of each true class were labelled over all samples, a matrix per network."""
    measured = table[f"pixels_truth_{classes[0]}"].notna()
    models = [str(model) for model in table.loc[measured, "model"].unique()]
    figure = Figure(figsize=(3.6 * max(len(models), 1), 3.6), layout="constrained")
    many = np.atleast_1d(figure.subplots(1, max(len(models), 1)))
    for axes, model in zip(many, models, strict=False):
        part = table[table["model"] == model]
        counts = np.array([[part[f"pixels_{true}_as_{label}"].sum() for label in classes] for true in classes], float)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
        for (row, column), share in np.ndenumerate(shares):
            axes.text(column, row, f"{share:.1%}", ha="center", va="center", color="black" if share > 0.5 else "white")
        axes.set_xticks(range(len(classes)), classes)
        axes.set_yticks(range(len(classes)), classes)
        axes.set(title=model, xlabel="predicted", ylabel="truth")
    return _svg(figure, many[0], empty=not models, legend=False)


def range_test(tried: pd.DataFrame, lowest: float, highest: float) -> str:
    """Draw loss and smoothed loss over the learning rates that were tried, and the range of usable ones."""
    figure, axes = _figure()
    axes.plot(tried["learning_rate"], tried["loss"], color=_colour(0), alpha=0.4, label="loss of a step")
    axes.plot(tried["learning_rate"], tried["smoothed"], color=_colour(0), label="smoothed")
    axes.axvspan(lowest, highest, color=_colour(1), alpha=0.3, label=f"usable: {lowest:.2g} to {highest:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
    return _svg(figure, axes, empty=False)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE_IN, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes


def _colour(number: int) -> str:
    return css(class_rgb(number % 7 + 1))


def _svg(figure: Figure, axes: Axes, *, empty: bool, legend: bool = True) -> str:
    if empty:
        axes.text(0.5, 0.5, "nothing to show", ha="center", va="center", transform=axes.transAxes)
    elif legend:
        axes.legend(frameon=False)
    file = io.StringIO()
    metadata: Any = {"Date": None}  # the same figure twice is the same file
    with rc_context({"svg.hashsalt": "slidemill", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata=metadata, dpi=150)
    return file.getvalue()
