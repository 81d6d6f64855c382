"""The part of the configuration about masks: how objects are told apart, chosen or by what a training found best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

import models
from pipeline.base.errors import ConfigError
from pipeline.settings.crf import CrfConfig
from pipeline.settings.section import NonNegative, Section

Criterion = Literal["f1", "rand"]
_LEAST_F1 = 0.1  # below it, differences are noise
DISTANCE = "distance"  # a head of networks, and the way to tell objects apart by it
DETECTED = "detected"
_USUAL = {"neck": 0.85, "seed": 0.5, "border": 0.4}  # numbers of the ways to tell objects apart


class MaskConfig(Section):
    """What is written into the masks. Areas are of 4-connected pixels, over the whole slide."""

    younger: ClassVar[frozenset[str]] = frozenset({"crf"})

    instances: Literal["none", "components", "watershed", "distance", "partition", "detected", "auto"] = Field(
        "auto",
        description="The image of object ids. `components` numbers the 4-connected components of each class except "
        "background. Others also separate objects that touch: `watershed` by probabilities and shape; `distance` by "
        "how far from the border of its object the network takes each pixel to be, for networks with that head; "
        "`partition`, for cells that fill the image up to their membranes, along the highest probability of the first "
        "class, over all pixels. `detected` are those of a network that detects objects (`mask_rcnn`). `auto` is that "
        "for such a network, else the way that was best on the images held back from training (table *Objects* in the "
        "report). `none` omits the image. If it is not set and `training.kind` is `classes`: `components`, unless a "
        "network detects objects.",
    )
    neck: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="For `instances: watershed` and `distance`: an object is split where the neck between two parts is "
        "less deep than this share of the shallower part. Depth is the distance to the outline times the probability, "
        "or the distance that the network has learned. Lower values split less. null: 0.85, or with `instances: auto` "
        "what was best.",
    )
    seed: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        description="For `instances: distance`: each connected region above this distance (share of the largest of "
        "its object) can be an object; what has no such region joins the others. null: 0.5, or with `instances: auto` "
        "what was best.",
    )
    border: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None,
        description="For `instances: partition`: two cells are one if the mean probability of the first class along "
        "their common border is less than this. Higher values split less. null: 0.4, or with `instances: auto` what "
        "was best.",
    )
    criterion: Criterion = Field(
        "f1",
        description="For `instances: auto`: `f1`, the mean F1 of objects over IoU 0.5 to 0.9, or `rand`, the adapted "
        "Rand error, for cells that fill the image: only then is `partition` among the ways.",
    )
    min_object_um2: NonNegative = Field(
        0.0, description="Objects of less area (µm²) become background; 0 keeps all. Needs the pixel size of the slide."
    )
    max_hole_um2: NonNegative = Field(
        0.0,
        description="Background of at most this area (µm²) within one class becomes that class, after small objects "
        "are removed; 0 fills none. Needs the pixel size of the slide.",
    )

    min_object_px: NonNegative | Literal["auto"] | None = Field(
        None,
        description="As `min_object_um2`, in px, for slides without a pixel size. `auto`: half of the area "
        "above which 95 % of the annotated objects are. Of the two areas the larger one counts. null: 0, or with "
        "`instances: auto` what was best on the held-back images, 0 or `auto`.",
    )
    max_hole_px: NonNegative = Field(0.0, description="The same as `max_hole_um2` in px. The larger one counts.")
    crf: CrfConfig | Literal["auto"] | None = Field(
        None,
        description="A conditional random field that moves the borders of classes to edges of the image, before "
        "anything else: `{}` is the one with default settings, null none. Classes come from it; what tells objects "
        "apart (probabilities, distance) stays that of the network. `auto`: the best of seven that `train` tries on "
        "the held-back images, or none if none has a higher foreground Dice there (table *Random fields* in the "
        "report).",
    )

    @property
    def needs_pixel_size(self) -> bool:
        """Whether an area is stated in µm²."""
        return self.min_object_um2 > 0 or self.max_hole_um2 > 0

    @property
    def cleans(self) -> bool:
        """Whether anything is removed or filled."""
        return self.needs_pixel_size or bool(self.min_object_px) or self.max_hole_px > 0

    def number(self, name: str) -> float:
        """Return ``neck``, ``seed`` or ``border``: as stated, else the usual one."""
        stated: float | None = getattr(self, name)
        return _USUAL[name] if stated is None else stated

    @property
    def pairs_per_px(self) -> float:
        """How many pairs of pixels the random field weighs, per pixel; for ``auto`` as many as the usual one."""
        return (CrfConfig() if self.crf == "auto" else self.crf).pairs_per_px if self.crf else 0.0

    @property
    def needs(self) -> set[str]:
        """What they need of a prediction beside its labels; not known of ``auto``."""
        of_objects = {
            "watershed": {"probabilities"},
            "partition": {"probabilities"},
            DISTANCE: {"heads"},
            DETECTED: {"objects"},
        }
        return of_objects.get(self.instances, set()) | ({"probabilities"} if isinstance(self.crf, CrfConfig) else set())


def mistake_in_masks(masks: MaskConfig, architecture: str) -> str:
    """Return what a network of an architecture cannot do with these settings, empty if nothing."""
    if not architecture:  # not trained yet
        return ""
    if not models.detects_objects(architecture):
        detected = f"masks.instances 'detected' is for mask_rcnn, not {architecture}; set auto"
        return detected if masks.instances == DETECTED else ""
    if masks.instances not in ("auto", "none", DETECTED):
        return f"masks.instances {masks.instances!r}: {architecture} finds its objects itself; set auto"
    return f"masks.crf: {architecture} has no probability of each pixel; set null" if masks.crf else ""


def resolve_masks(masks: MaskConfig, card: Mapping[str, Any]) -> MaskConfig:
    """Return the configuration without ``auto``: with what was best for a network, of random fields and of objects.

    A number that the way to tell objects apart does not use is the usual one, so that it makes no mask again.

    There is no random field if none was tried, or none was better than none.

    A network that detects objects keeps these. One that was not compared (of an older version) gets ``distance`` if it
    has that head, else ``components``. One whose objects are hardly ever found gets ``components``: the rest would be
    chosen by chance. ``partition`` makes objects of the background too, so only the criterion ``rand`` can choose it.

    Parameters
    ----------
    card : mapping
        Content of its ``model.json``: ``parting``, a list of mappings with ``settings``, ``f1`` and ``rand`` (None
        where there was nothing to measure); ``crf``, one with ``settings`` and ``foreground_dice``; ``heads``; and
        ``architecture``.

    Raises
    ------
    ConfigError
        If the network cannot have such masks.
    """
    if mistake := mistake_in_masks(masks, architecture := card.get("architecture", "")):
        raise ConfigError(mistake)
    if masks.instances == "auto" and models.detects_objects(architecture):
        return _with_numbers(masks.model_copy(update={"instances": DETECTED}))
    if masks.crf == "auto":
        masks = masks.model_copy(update={"crf": best_field(card.get("crf") or [])})
    if masks.instances != "auto":
        return _with_numbers(masks)
    known = MaskConfig.model_fields.keys()  # a network of an older version may have been compared in another way
    compared = [one for one in card.get("parting") or [] if one["settings"].keys() <= known]
    tried = [one for one in compared_with(compared, masks.crf) if one[masks.criterion] is not None]
    settings: dict[str, Any] = {"instances": "components"}
    if masks.criterion == "rand" and tried:
        settings = min(tried, key=lambda one: float(one["rand"]))["settings"]
    elif tried:
        best = max(
            (one for one in tried if one["settings"]["instances"] != "partition"), key=lambda one: float(one["f1"])
        )
        settings = best["settings"] if best["f1"] >= _LEAST_F1 else settings
    elif DISTANCE in card.get("heads", []):
        settings = {"instances": DISTANCE}
    stated = masks.model_dump(exclude={"instances", "criterion"}, exclude_none=True)
    return _with_numbers(MaskConfig.model_validate(settings | stated))


def _with_numbers(masks: MaskConfig) -> MaskConfig:
    """Return masks with the numbers that their way to tell objects apart uses, and the usual ones of the others."""
    used = {"watershed": {"neck"}, DISTANCE: {"seed", "neck"}, "partition": {"border"}}.get(masks.instances, set())
    numbers = {name: masks.number(name) if name in used else usual for name, usual in _USUAL.items()}
    return masks.model_copy(update=numbers | {"criterion": MaskConfig.model_fields["criterion"].default})


def compared_with(partings: Sequence[Mapping[str, Any]], field: object) -> list[Mapping[str, Any]]:
    """Return the ways to tell objects apart that were compared after a random field, those without one if none was.

    Their ``settings`` have a ``crf`` then.
    """
    fields = [one["settings"].get("crf") for one in partings]
    known = [None if settings is None else CrfConfig.model_validate(settings) for settings in fields]
    same = [one for one, of_one in zip(partings, known, strict=True) if of_one == field]
    return same or [one for one, of_one in zip(partings, known, strict=True) if of_one is None]


def best_field(tried: Sequence[Mapping[str, Any]]) -> CrfConfig | None:
    """Return the first field with the highest Dice; None if that is no field, or there is nothing to compare."""
    scored = [one for one in tried if one["foreground_dice"] is not None]
    settings = max(scored, key=lambda one: float(one["foreground_dice"]), default={"settings": None})["settings"]
    return None if settings is None else CrfConfig.model_validate(settings)
