"""Settings that are ``auto``: depth, patch size, batch size and normalization, computed from the training images.

A configuration, measurements of the images and a memory budget go in; a configuration without ``auto`` comes out, and
the reason for each value is logged. The rules are in docs/auto.md, their sources in decision 24.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

import models
from models.base.cost import count_parameters, training_bytes_per_px
from models.base.geometry import Geometry, round_up
from models.base.interface import SegmentationModel
from pipeline.base.errors import ConfigError
from pipeline.settings.networks import AUTO, ModelConfig, ResolvedConfig
from pipeline.training.data.training_set import TrainingSet

log = logging.getLogger(__name__)

Options = Mapping[str, Any]

DEPTHS = range(2, 6)  # halvings of the resolution; one more doubles the halo of every tile
SPAN = 3  # a network should look this many object diameters far
CELLS = 4  # smallest side of a patch in strides, as in nnU-Net
STEP_PX = 4 * 256**2  # pixels of a step: about a second on two cores (U-Net of width 16)
SMALLEST_BATCH, LARGEST_BATCH, USUAL_BATCH = 2, 16, 4

_PROCESS_BYTES = 1100 * 10**6  # Python with torch, MONAI and Lightning
_WEIGHT_BYTES = 24  # of a weight, its gradient, two moments of AdamW, and two copies of the weights that are kept
_HEAP = 2.0  # bytes of the heap per byte of live tensors, as in prediction
_LOADED_BYTES = 128  # per pixel of the patches that are made ahead


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Memory of a training step of one network."""

    geometry: Geometry
    fixed_bytes: int
    bytes_per_px: int

    def pixels(self, memory_mb: int) -> int:
        """Return the most pixels of all patches of a step, 0 if nothing fits."""
        return max(0, memory_mb * 10**6 - self.fixed_bytes) // self.bytes_per_px

    def needed_mb(self, pixels: int) -> int:
        """Return the memory in MB of a step with this many pixels."""
        return -(-(self.fixed_bytes + pixels * self.bytes_per_px) // 10**6)

    @property
    def least_px(self) -> int:
        """Side of the smallest patch: a few strides, and large enough for an output, or for the largest object."""
        stride, object_px = self.geometry.stride_px, self.geometry.object_px or 0
        return max(CELLS * stride, round_up(2 * self.geometry.margin_px + stride, stride), round_up(object_px, stride))


def resolve(
    config: ModelConfig,
    data: TrainingSet,
    *,
    in_channels: int,
    num_classes: int,
    heads: Sequence[str] = (),
    memory_mb: int,
) -> ResolvedConfig:
    """Return the configuration with a value for every ``auto``, and log the reasons.

    The result depends on the arguments only, not on the machine, so that a training is repeatable.

    Parameters
    ----------
    config : ModelConfig
        Other settings are not changed.
    data : TrainingSet
        Measurements of the training images.
    in_channels, num_classes, heads
        Of the network.
    memory_mb : int
        Memory limit of the training job, on the CPU or the GPU.

    Raises
    ------
    ConfigError
        If the architecture has no such option, or the smallest step does not fit into ``memory_mb``.
    """
    shape = {"in_channels": in_channels, "num_classes": num_classes, "heads": heads}
    options: dict[str, Any] = dict(config.stated_options)
    if "depth" in config.auto_options and (depth := choose_depth(config, data, shape)) is not None:
        options["depth"] = depth
    exact = {"normalization": "batch"} if "normalization" in config.auto_options else {}
    options |= choose_objects(config, data)
    network = _build_without_memory(config.architecture, options | exact, shape)
    step = measure_step(network)
    patch_px = choose_patch(config, data, step, memory_mb) if config.patch_px == AUTO else config.patch_px
    batch_size = config.batch_size
    if batch_size == AUTO:
        batch_size = choose_batch(patch_px, step, memory_mb, least=network.least_batch)
    if exact:
        options["normalization"] = choose_normalization(batch_size)
    needed_mb = step.needed_mb(batch_size * patch_px**2)
    if needed_mb > memory_mb:
        log.warning(
            "a step takes about %d MB, training.memory_mb is %d; lower patch_px or batch_size if memory runs out",
            needed_mb,
            memory_mb,
        )
    _warn_about_pixel_sizes(data)
    resolved = {"options": options, "patch_px": patch_px, "batch_size": batch_size}
    return ResolvedConfig(**{name: getattr(config, name) for name in type(config).model_fields} | resolved)


def choose_depth(config: ModelConfig, data: TrainingSet, shape: dict[str, Any]) -> int | None:
    """Return the smallest depth whose context spans three objects; None (the default depth) without an object.

    Images and patches must be at least four strides wide, which limits the depth.
    """
    if data.object_px is None:
        log.info("depth: default of the architecture, since there is no object to measure")
        return None
    side_px = data.side_px if config.patch_px == AUTO else min(data.side_px, config.patch_px)
    wanted_px = SPAN * data.object_px
    best, context_px = None, 0
    for depth, geometry in _possible_depths(config, shape):
        if best is not None and CELLS * geometry.stride_px > side_px:
            break
        best, context_px = depth, geometry.context_px or 0
        if context_px >= wanted_px:
            break
    log.info(
        "depth %d: typical objects are %.0f px wide, the context is %d px (%.0f wanted, images or patches of %d px)",
        best,
        data.object_px,
        context_px,
        wanted_px,
        side_px,
    )
    return best


def choose_objects(config: ModelConfig, data: TrainingSet) -> dict[str, float]:
    """Return the options of a network that detects objects, as far as they are not stated: sides and density.

    None for other networks, and without an object.
    """
    if not models.detects_objects(config.architecture) or "largest_px" not in data.objects:
        return {}
    found = {
        "smallest_px": data.objects["smallest_px"],
        "largest_px": data.objects["largest_px"],
        "objects_per_mpx": data.objects.get("most_per_mpx", 1.0),
    }
    chosen = {name: round(value, 1) for name, value in found.items() if name not in config.stated_options}
    log.info("%s: of the training objects (5 %% are smaller; where they are densest)", chosen)
    return chosen


def choose_patch(config: ModelConfig, data: TrainingSet, step: StepMemory, memory_mb: int) -> int:
    """Return the side of a patch: as large as images, time and memory allow.

    In larger patches, more pixels have the same context as in prediction.
    """
    stride, context_px = step.geometry.stride_px, step.geometry.context_px
    batch = USUAL_BATCH if config.batch_size == AUTO else config.batch_size
    limits = {
        "images": round_up(data.side_px, stride),
        f"{USUAL_BATCH} patches per step": math.isqrt(STEP_PX // USUAL_BATCH),
        f"{batch} patches in {memory_mb} MB": math.isqrt(step.pixels(memory_mb) // batch),
    }
    patch_px = max(step.least_px, min(limits.values()) // stride * stride)
    log.info(
        "patch_px %d: smallest of the limits by %s; a multiple of the stride of %d px, at least %d; context %s",
        patch_px,
        ", ".join(f"{limit} ({length} px)" for limit, length in limits.items()),
        stride,
        step.least_px,
        "global" if context_px is None else f"{context_px} px",
    )
    return patch_px


def choose_batch(patch_px: int, step: StepMemory, memory_mb: int, *, least: int) -> int:
    """Return the number of patches of a step: those of a fixed number of pixels, or fewer if memory is short."""
    fitting = step.pixels(memory_mb) // patch_px**2
    if fitting < least:
        raise ConfigError(
            f"training.memory_mb is {memory_mb}, a step of {least} patches of {patch_px} px takes "
            f"{step.needed_mb(least * patch_px**2)}; raise it, choose a smaller width, or set batch_size"
        )
    wanted = min(max(STEP_PX // patch_px**2, SMALLEST_BATCH, least), LARGEST_BATCH)
    batch_size = min(wanted, fitting)
    log.info(
        "batch_size %d: %d patches of %d px for a step of %d px, %d fit into %d MB",
        batch_size,
        wanted,
        patch_px,
        STEP_PX,
        fitting,
        memory_mb,
    )
    return batch_size


def choose_normalization(batch_size: int) -> str:
    """Return "batch" for a batch of several patches, else "group", with which tiles cannot be exact."""
    if batch_size >= SMALLEST_BATCH:
        log.info("normalization batch: a batch has %d patches, and tiles are exact", batch_size)
        return "batch"
    log.info("normalization group: a batch is one patch; the context is global, so tiles are blended")
    return "group"


def batch_doubt(network: SegmentationModel, batch_size: int) -> str:
    """Return a sentence if a network would learn the statistics of batch normalization from one patch at a time."""
    layers = network.modules()
    if batch_size >= SMALLEST_BATCH or not any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in layers):
        return ""
    return (
        "batches of one patch: batch normalization learns from each patch alone, and segments much worse afterwards; "
        f"set batch_size to {SMALLEST_BATCH} or more and patch_px to less, or options.normalization to auto, where the "
        "architecture has it"
    )


def measure_step(network: SegmentationModel) -> StepMemory:
    """Return the memory of a step of a network, which is on the device ``meta``."""
    grown = round(_HEAP * training_bytes_per_px(network)) + _LOADED_BYTES
    fixed = _PROCESS_BYTES + _WEIGHT_BYTES * count_parameters(network)
    return StepMemory(geometry=network.geometry, fixed_bytes=fixed, bytes_per_px=grown)


def _possible_depths(config: ModelConfig, shape: dict[str, Any]) -> Iterator[tuple[int, Geometry]]:
    """Yield the depths, in ascending order, that the other options allow; deep supervision needs three levels.

    Raises
    ------
    ConfigError
        If the architecture refuses the options at every depth: the reason at the first.
    """
    refusals, found = list[ConfigError](), False
    for depth in DEPTHS:
        try:
            geometry = _geometry_at(depth, config, shape)
        except ConfigError as error:
            refusals.append(error)
        else:
            found = True
            yield depth, geometry
    if not found:
        raise refusals[0]


def _geometry_at(depth: int, config: ModelConfig, shape: dict[str, Any]) -> Geometry:
    """Return the geometry at a depth, with batch normalization: with others the context is always global."""
    local = {"normalization": "batch"} if "normalization" in config.options else {}
    return _build_without_memory(config.architecture, config.stated_options | local | {"depth": depth}, shape).geometry


def _build_without_memory(architecture: str, options: Options, shape: dict[str, Any]) -> SegmentationModel:
    try:
        with torch.device("meta"):
            return models.build(architecture, options=options, **shape)
    except ValueError as error:
        raise ConfigError(f"options: {error}") from error


def _warn_about_pixel_sizes(data: TrainingSet) -> None:
    """Warn if the training images have different pixel sizes, so that objects of one kind differ in pixels."""
    if not data.pixel_sizes_um:
        return
    sizes = np.sqrt(np.prod(data.pixel_sizes_um, axis=1))
    if sizes.max() > 1.2 * sizes.min():
        log.warning(
            "pixel sizes of the training images are %.3g to %.3g um; image.pixel_size_um brings them to one size",
            sizes.min(),
            sizes.max(),
        )
