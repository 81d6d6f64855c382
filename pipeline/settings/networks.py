"""The part of the configuration about training: annotated images and networks."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

import models
from models.base.heads import HEADS, Head
from pipeline.settings.section import NonNegative, Place, Positive, Section, Share

ChangeOfSpace = Literal["flip", "rotate_deg", "shift_px", "scale", "crop", "elastic_px"]
ChangeOfColour = Literal["stain", "contrast", "brightness", "gamma", "blur_px", "noise", "channel_shuffle", "erase"]
ChangeName = ChangeOfSpace | ChangeOfColour

AUTO: Literal["auto"] = "auto"
AUTO_OPTIONS = {"depth", "normalization", "smallest_px", "largest_px", "objects_per_mpx"}


class TrainingConfig(Section):
    """The annotated images. Images and labels are paired by their path under the two folders, without suffix.

    Labels are images, or outlines drawn in QuPath (`.geojson`) or ImageJ (`.roi`, `.zip`).
    """

    images: Place = Field("data/training/images", description="Folder of training images.")
    labels: Place = Field("data/training/labels", description="Folder of their label images or annotation files.")
    kind: Literal["instances", "classes"] = Field(
        "instances",
        description="What a label image holds: an id per object (0 = background; objects become the second class), "
        "or a value per class. References are read in the same way. In an annotation file, every outline is an object, "
        "or an area of its class.",
    )
    values: list[int] | None = Field(
        None,
        description="For `kind: classes`: the pixel value of each class, in the order of `classes`; null: 0, 1, 2, ...",
    )
    ignored: int | None = Field(
        None,
        description="The pixel value of label images that means *not annotated*: such pixels are neither learned nor "
        "scored. Pixels outside all outlines of an annotation file are then not annotated either. null: everything "
        "is annotated, and pixels outside of the outlines are background.",
    )
    allow_empty: bool = Field(
        False,
        description="Allow training images whose labels are all background; otherwise they are an error.",
    )
    validation: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of the training images held back for validation: the last ones by name, whole files, "
        "at least one. Images of one group are held back together. A model with `folds` does not use it.",
    )
    samples: Place = Field(
        "config/training.csv",
        description="Optional sample sheet of the training images, a CSV with the columns `sample` (path below "
        "`images`, without suffix) and `group` (animal, patient, field), with a line for every image. Without it, "
        "images of one subfolder are a group, and any other image is a group of its own. A group is never both learned "
        "from and held back.",
    )
    memory_mb: int = Field(
        8000,
        ge=2000,
        description="Memory in MB that training may use. Patches and batches that are `auto` fit into it; a file "
        "whose pieces do not fit is refused before it is decoded.",
    )

    @model_validator(mode="after")
    def _ignored_is_no_class(self) -> Self:
        classes = [0] if self.kind == "instances" else self.values or []
        if self.ignored in classes:
            raise ValueError(f"ignored: {self.ignored} is the value of a class; choose another")
        return self


class LossWeights(Section):
    """Weight of each loss of :mod:`pipeline.training.losses` in their sum."""

    cross_entropy: NonNegative = Field(1.0, description="Weight of the pixel-weighted cross-entropy.")
    dice: NonNegative = Field(1.0, description="Weight of the Dice loss.")
    jaccard: NonNegative = Field(0.0, description="Weight of the Jaccard loss (soft intersection over union).")
    focal: NonNegative = Field(
        0.0,
        description="Weight of the focal loss, pixel-weighted too: cross-entropy with more weight on difficult pixels.",
    )
    tversky: NonNegative = Field(
        0.0, description="Weight of the Tversky loss: Dice with separate penalties for false and missed pixels."
    )
    generalized_dice: NonNegative = Field(
        0.0, description="Weight of the generalized Dice loss, in which rare classes count as much as common ones."
    )
    lovasz: NonNegative = Field(0.0, description="Weight of the Lovász-softmax loss, a surrogate of the Jaccard index.")
    cl_dice: NonNegative = Field(
        0.0,
        description="Weight of the clDice loss, which keeps thin structures connected; combine it with another loss.",
    )


class LossConfig(LossWeights):
    """The loss: a weighted sum."""

    distance: NonNegative = Field(10.0, description="Weight of the loss of the head `distance`, a smooth L1.")
    boundary: NonNegative = Field(10.0, description="Weight of the loss of the head `boundary`, a smooth L1.")
    focal_gamma: float = Field(
        2.0, ge=1, le=10, description="How strongly the focal loss reduces the weight of easy pixels."
    )
    tversky_alpha: Positive = Field(0.3, description="Penalty of false positives in the Tversky loss.")
    tversky_beta: Positive = Field(0.7, description="Penalty of false negatives in the Tversky loss.")
    cl_dice_iterations: int = Field(
        3,
        ge=1,
        le=50,
        description="Erosions that reduce structures to their centreline in clDice: half their width in px.",
    )
    boundary_weight: float = Field(
        10.0, ge=0, le=1000, description="w0 of the U-Net weight map; 0 turns the boundary term off."
    )
    boundary_sigma_px: float = Field(5.0, gt=0, le=100, description="Sigma in px of the U-Net weight map.")
    class_balance: bool = Field(
        False,
        description="Weight pixels inversely to the frequency of their class in the training set (w_c of the weight "
        "map). Dice already balances classes; together they make rare classes too large.",
    )

    def parameters_of(self, loss: str) -> dict[str, Any]:
        """Return the arguments of a loss: keys that begin with its name, without that name."""
        return {key.removeprefix(f"{loss}_"): value for key, value in self if key.startswith(f"{loss}_")}

    @model_validator(mode="after")
    def _any_loss(self) -> Self:
        if not any(getattr(self, loss) for loss in LossWeights.model_fields):
            raise ValueError(f"all of {', '.join(LossWeights.model_fields)} are 0; at least one must be above 0")
        return self


class HeadsConfig(Section):
    """What the network learns beside its classes to part objects that touch, from their ids: docs/training.md."""

    distance: bool = Field(
        False,
        description="The distance to the border of the object: 0 there, 1 at its deepest pixel. Of `classes`, the "
        "objects are the connected parts of each class but the first.",
    )
    boundary: bool = Field(False, description="Where an object is near another: at most one pixel between them.")

    @property
    def names(self) -> tuple[Head, ...]:
        """The heads that are on, in the order of their channels."""
        return tuple(head for head in HEADS if getattr(self, head))


class AugmentationConfig(Section):
    """Random changes of training patches, shown in docs/augmentation.md. Each number is the largest change; 0: none."""

    flip: bool | Literal["left_right", "up_down"] = Field(
        True,
        description="Flips and quarter turns, all eight combinations equally often; or flips along one axis, where "
        "images have an upper side or labels are shifted.",
    )
    rotate_deg: float = Field(20.0, ge=0, le=180, description="Largest rotation in degrees.")
    shift_px: float = Field(0.0, ge=0, description="Largest shift in px; patches are at random positions anyway.")
    scale: float = Field(0.15, ge=0, lt=1, description="Largest relative change of size, along each axis.")
    crop: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Largest share of the side that is cut off; the rest is enlarged to the size of the patch.",
    )
    elastic_px: float = Field(
        3.0, ge=0, description="Largest standard deviation in px of the random displacements of elastic deformation."
    )
    elastic_grid_px: float = Field(
        32.0, ge=4, description="Distance in px between those displacements, which are interpolated smoothly."
    )
    brightness: float = Field(0.1, ge=0, description="Largest shift of normalized intensity.")
    contrast: float = Field(0.75, ge=0, lt=1, description="Largest relative change of contrast.")
    gamma: float = Field(0.5, ge=0, lt=1, description="Largest relative change of gamma.")
    noise: float = Field(0.03, ge=0, description="Largest standard deviation of Gaussian noise.")
    blur_px: float = Field(0.8, ge=0, description="Largest sigma in px of Gaussian blur.")
    stain: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Largest relative change of each stain (haematoxylin, eosin, DAB) of a section, and its largest "
        "shift in optical density; for RGB images. 0.05 is light, 0.2 strong.",
    )
    channel_shuffle: bool = Field(False, description="Channels in random order.")
    erase: float = Field(
        0.0, ge=0, lt=1, description="Largest side of a rectangle set to 0, as a share of the patch; its labels stay."
    )
    probability: dict[ChangeName, Share] = Field(
        {}, description="Probability of each change, by its key, such as `{noise: 0.2}`; default 0.5, 1 for `flip`."
    )

    def chance(self, change: ChangeName) -> float:
        """Return the probability of a change; 0 if it is turned off."""
        return self.probability.get(change, 1.0 if change == "flip" else 0.5) if getattr(self, change) else 0.0


class OptimizerConfig(Section):
    """How the weights are updated. Rarely changed."""

    kind: Literal["adamw", "sgd"] = Field(
        "adamw",
        description="`adamw` (doi:10.48550/arXiv.1711.05101), or `sgd` with `momentum`, as the U-Net was published; "
        "`sgd` needs another `learning_rate`: `slidemill find-lr`.",
    )
    momentum: float = Field(0.99, ge=0, lt=1, description="Momentum of `sgd`.")
    weight_decay: NonNegative = Field(0.01, description="Decay of the weights per step, relative to the learning rate.")
    schedule: Literal["cosine", "poly", "constant"] = Field(
        "cosine",
        description="How the learning rate falls from its peak over the training: half a `cosine`, `poly` (remaining "
        "share of the training to the power of 0.9), or not at all.",
    )
    warm_up: float = Field(
        0.05, ge=0, lt=1, description="Share of the training in which the learning rate rises from 0 to its peak."
    )
    largest_gradient: Positive = Field(1.0, description="Gradients whose norm is larger are scaled down to it.")
    average: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="Decay per step of a moving average of all weights and statistics; the average is validated and "
        "kept. In the first steps it is shorter: min(average, (1 + step) / (10 + step)). 0 turns it off.",
    )


class ModelConfig(Section):
    """One network and its training."""

    architecture: str = Field(
        "unet",
        description=f"Name of the architecture: {', '.join(f'`{name}`' for name in models.available())}, or, with the "
        "extra `zoo`, `smp/ARCHITECTURE/ENCODER` of segmentation_models_pytorch. See docs/models.md.",
    )
    options: dict[str, int | float | str | bool] = Field(
        default_factory=dict,
        description="Options of the architecture, such as `width`, listed in docs/models.md. `depth` and "
        "`normalization` can be `auto`, and those of `mask_rcnn` that describe objects are: "
        "[docs/auto.md](../docs/auto.md).",
    )
    pretrained: Place | None = Field(
        None,
        description="Initial weights instead of random ones: `imagenet` (from torchvision, for architectures with a "
        "backbone), the name of another entry of `models` (an `fcn16s` starts from an `fcn32s`), or the path of a "
        "file: a torchvision state dict (.pth) or a `model.safetensors`, such as an earlier one of this model in "
        "`results/models/NAME/kept/`.",
    )
    encoder_rate: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Learning rate of the encoder relative to that of the rest; 0 freezes its weights and statistics.",
    )
    frozen_steps: int = Field(
        0,
        ge=0,
        description="First steps, in which the encoder keeps its weights and statistics; for `pretrained`.",
    )
    heads: HeadsConfig = Field(HeadsConfig(), description="What is learned beside the classes.")
    loss: LossConfig = Field(LossConfig(), description="The loss.")
    augmentation: AugmentationConfig = Field(AugmentationConfig(), description="Random changes of the patches.")
    max_steps: int = Field(
        2000,
        ge=1,
        description="Training ends after this number of optimizer steps. Raised later, it goes on from there.",
    )
    max_minutes: Positive | None = Field(
        None,
        description="Training ends after this time if it has not reached `max_steps`; validation counts, and time "
        "for the last one is kept, interruptions do not. Such a training is not repeatable. null: no limit.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Training ends after this number of validations without a better foreground Dice, and keeps the "
        "network of the best one. null: never; the network of the end is kept.",
    )
    validate_every: int = Field(
        50,
        ge=1,
        description="Optimizer steps between two validations; more if the held-back images are so large that "
        "validation would take over a tenth of the computation.",
    )
    patch_px: Annotated[int, Field(ge=16)] | Literal["auto"] = Field(
        AUTO,
        description="Side in px of a training patch, a multiple of the stride. `auto`: at most 256 px, at most the "
        "size of the images, and within `training.memory_mb`: [docs/auto.md](../docs/auto.md).",
    )
    balance: Share = Field(
        0.5,
        description="Share of the patches that contain a pixel of a random class, all classes equally often; "
        "the others are at random annotated positions.",
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        AUTO,
        description="Patches per optimizer step. `auto`: from 2 to 16, with together the pixels of 4 patches of "
        "256 px, and within `training.memory_mb`.",
    )
    learning_rate: Positive = Field(1e-3, description="Peak learning rate; it rises, then falls (`optimizer`).")
    optimizer: OptimizerConfig = Field(OptimizerConfig(), description="How the weights are updated.")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Arithmetic of training. `auto`: bfloat16 if the device computes faster in it, else float32. "
        "`float16` scales the loss; only on CUDA.",
    )
    folds: int | None = Field(
        None,
        ge=2,
        description="Cross-validation: number of networks to train, each with another part of the images held back; "
        "the model is their average. See docs/cross-validation.md. null: one network, `training.validation` held "
        "back.",
    )
    seed: int = Field(0, ge=0, description="Seed of initial weights, patches and augmentation.")
    checkpoint: Place | None = Field(
        None,
        description="A trained `model.safetensors` with its `model.json` beside it; replaces training altogether.",
    )

    @model_validator(mode="after")
    def _architecture_is_known(self) -> Self:
        if not models.is_known(self.architecture):
            raise ValueError(f"unknown architecture {self.architecture!r}; available: {', '.join(models.available())}")
        return self

    @model_validator(mode="after")
    def _folds_are_trained(self) -> Self:
        if self.folds and self.checkpoint:
            raise ValueError("checkpoint replaces training, and folds are trained; remove one of them")
        if self.folds and self.patience:
            raise ValueError(
                "patience would let the images that a fold is evaluated on decide when its training ends; remove it"
            )
        return self

    @model_validator(mode="after")
    def _auto_options_have_a_rule(self) -> Self:
        if unknown := sorted(self.auto_options - AUTO_OPTIONS):
            raise ValueError(f"options.{unknown[0]} cannot be 'auto', only {', '.join(sorted(AUTO_OPTIONS))} can")
        return self

    @property
    def max_seconds(self) -> float:
        """``max_minutes`` in seconds; infinite without a limit."""
        return math.inf if self.max_minutes is None else 60 * self.max_minutes

    @property
    def auto_options(self) -> set[str]:
        """Names of the options that are chosen from the training images."""
        return {name for name, value in self.options.items() if value == AUTO}

    @property
    def stated_options(self) -> dict[str, int | float | str | bool]:
        """The other options."""
        return {name: value for name, value in self.options.items() if value != AUTO}


class ResolvedConfig(ModelConfig):
    """One network without ``auto``, as :func:`pipeline.training.auto_settings.resolve` returns it."""

    patch_px: int
    batch_size: int

    @model_validator(mode="after")
    def _nothing_is_auto(self) -> Self:
        if self.auto_options:
            raise ValueError(f"options.{min(self.auto_options)} is still 'auto'")
        return self
