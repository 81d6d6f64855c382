"""Names of metrics, for tables and pages that compute none: importing this loads nothing."""

from __future__ import annotations

HEADLINE = "foreground_dice"  # what networks are stopped, chosen and ranked by: the mean Dice without the background
POOLED = ("dice", "jaccard")  # also of all pixels and classes together
SURFACE = ("hausdorff95", "surface_distance", "surface_dice", "boundary_iou")
THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # of the intersection over union of objects
