"""Mask R-CNN: boxes proposed at every place of a feature pyramid, then class, box and mask of each.

He, Gkioxari, Dollár, Girshick (2017), "Mask R-CNN", doi:10.1109/ICCV.2017.322; its feature pyramid: Lin et al. (2017),
doi:10.1109/CVPR.2017.106. The parts are those of torchvision. Boxes are proposed on the levels of the pyramid whose
stride is at most a quarter of the largest object, in sizes from the smallest object to the largest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads, expand_boxes, expand_masks
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import MultiScaleRoIAlign, masks_to_boxes
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock

from models.base.detection import Detection, detection_of
from models.base.detector import DetectionModel
from models.layers.backbones import ResNet, load_all
from models.layers.blocks import check_at_least_one, check_choice

_BACKBONES = {"resnet18": 18, "resnet34": 34, "resnet50": 50}
_STRIDES = (4, 8, 16, 32)  # of the levels of the pyramid
_PER_STRIDE = 4  # the largest object is at least so many strides of the coarsest level wide
_STEP = 1.5  # largest ratio of one size of anchors to the next
_RATIOS = (0.5, 1.0, 2.0)  # height to width of anchors
_FEWEST = 100  # proposals of an image; detections likewise
_PROPOSALS, _DETECTIONS = 4, 2  # per object that is expected
_BOXES_TO_LEARN, _ANCHORS_TO_LEARN, _MASKS_SHARE = 64, 256, 0.25  # of an image in a step
_BOX_CELLS, _MASK_CELLS = 7, 14  # sides of what is cut from the features
_INSIDE = 0.5  # probability of pixels of a mask
_LARGEST_PX, _MOST_PER_MPX = 10_000.0, 1e5  # what can be stated: larger objects or more of them need too much memory
_USUAL = {"smallest_px": 16.0, "largest_px": 64.0, "objects_per_mpx": 1000.0}  # for `auto` without images
Auto = Literal["auto"]


class MaskRCNN(DetectionModel):
    """Mask R-CNN on a ResNet with a feature pyramid.

    Parameters
    ----------
    backbone : {"resnet18", "resnet34", "resnet50"}
    width : int
        Channels of the first stage of the ResNet, 64 as published. The pyramid has four times as many.
    smallest_px, largest_px : float or "auto"
        Sides of the boxes of small objects and of the largest one. ``auto`` is measured on the training objects. No
        anchor is smaller than 4 px, the finest stride: an anchor of no width would have no target.
    objects_per_mpx : float or "auto"
        Objects per 10⁶ pixels where there are most; the number of proposals and detections follows from it.
    score : float
        Least score of a detection; at least 0.5, so that it is more probable than the background.
    """

    paper = "He et al. 2017, doi:10.1109/ICCV.2017.322"
    stride_px = 32

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        backbone: str = "resnet18",
        width: int = 64,
        smallest_px: float | Auto = "auto",
        largest_px: float | Auto = "auto",
        objects_per_mpx: float | Auto = "auto",
        score: float = 0.5,
    ) -> None:
        super().__init__()
        check_choice("backbone", backbone, tuple(_BACKBONES))
        check_at_least_one(in_channels=in_channels, num_classes=num_classes, width=width)
        self.backbone = backbone
        smallest, largest = (
            _within(name, side, most=_LARGEST_PX)
            for name, side in (("smallest_px", smallest_px), ("largest_px", largest_px))
        )
        if smallest > largest:
            raise ValueError(f"smallest_px must be at most largest_px, got {smallest:g} and {largest:g}")
        if not isinstance(score, int | float) or not 0.5 <= score < 1:
            raise ValueError(f"score must be a number of at least 0.5 and below 1, got {score!r}")
        self.largest_object_px = math.ceil(largest)
        self.objects_per_mpx = _within("objects_per_mpx", objects_per_mpx, most=_MOST_PER_MPX)
        sizes = anchor_sizes(max(smallest, _STRIDES[0]), max(largest, _STRIDES[0]))
        channels, levels = 4 * width, [str(level) for level in range(len(sizes))]
        body = ResNet(_BACKBONES[backbone], in_channels=in_channels, width=width)
        stages = {f"layer{level + 1}": str(level) for level in range(len(_STRIDES))}
        self.pyramid = BackboneWithFPN(body, stages, body.channels, channels, _Finest(len(sizes)))
        for level in range(len(sizes), len(_STRIDES)):
            self.pyramid.fpn.layer_blocks[level] = nn.Identity()  # not used
        self.rpn = _Proposals(sizes, channels)
        self.roi_heads = _heads(levels, channels, num_classes, score)

    @property
    def encoder(self) -> Any:
        """The ResNet."""
        return self.pyramid.body

    def load_backbone(self, state: Mapping[str, Tensor]) -> None:
        """Load the weights of a torchvision ResNet without its classifier."""
        features = {name: value for name, value in state.items() if not name.startswith("fc.")}
        load_all(self.encoder.state_dict(keep_vars=True), features)

    def detect(self, image: Tensor) -> list[list[Detection]]:
        """Return the objects of each image."""
        found, _ = self._find(image, None)
        return [_detections(one, (image.shape[2], image.shape[3])) for one in found]

    def losses(self, image: Tensor, classes: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """Return the five losses of the paper: of proposals (objectness, box), and of class, box and mask."""
        _, named = self._find(image, [targets_of(*one) for one in zip(classes, ids, strict=True)])
        return {_NAMES[name]: loss for name, loss in named.items()}

    def outline(self, image: Tensor) -> Tensor:
        """Return values by all layers, with as many boxes and masks as :meth:`detect` has at most."""
        self._expect(image)
        heads, features = self.roi_heads, self.pyramid(image)
        objectness, places = self.rpn.head(list(features.values()))
        boxes, masks = self.rpn.most, heads.detections_per_img
        if self.training:
            boxes, masks = _BOXES_TO_LEARN, int(_BOXES_TO_LEARN * _MASKS_SHARE)
        of_boxes, of_masks = (
            F.adaptive_avg_pool2d(features["0"], cells).repeat_interleave(count, dim=0)
            for cells, count in ((_BOX_CELLS, boxes), (_MASK_CELLS, masks))
        )
        scores, sides = heads.box_predictor(heads.box_head(of_boxes))
        used = [*objectness, *places, scores, sides, heads.mask_predictor(heads.mask_head(of_masks))]
        total = torch.stack([part.mean() for part in used]).sum()
        return total.expand(len(image), self.num_classes, *image.shape[2:]) + image[:, :1]

    def _find(self, image: Tensor, targets: list[dict[str, Tensor]] | None) -> tuple[list[Any], dict[str, Tensor]]:
        """Return boxes, classes, scores and masks of each image, or the losses if there are targets.

        Proposals are not computed in the lower precision of a training: bfloat16 is too coarse for the places of boxes.
        """
        self._expect(image)
        images = ImageList(image, [(image.shape[2], image.shape[3])] * len(image))
        features = {name: values.to(image.dtype) for name, values in self.pyramid(image).items()}
        with torch.autocast(image.device.type, enabled=False):
            proposals, of_proposals = self.rpn(images, features, targets)
        found, of_boxes = self.roi_heads(features, proposals, images.image_sizes, targets)
        return found, of_boxes | of_proposals

    def _expect(self, image: Tensor) -> None:
        """Set the number of proposals and detections by the area of an image."""
        expected = self.objects_per_mpx * image.shape[2] * image.shape[3] / 1e6
        self.rpn.most = max(_FEWEST, math.ceil(_PROPOSALS * expected))
        self.roi_heads.detections_per_img = max(_FEWEST, math.ceil(_DETECTIONS * expected))


_NAMES = {
    "loss_objectness": "objectness",
    "loss_rpn_box_reg": "proposal",
    "loss_classifier": "class",
    "loss_box_reg": "box",
    "loss_mask": "mask",
}


def anchor_sizes(smallest_px: float, largest_px: float) -> list[tuple[float, ...]]:
    """Return the sides of the anchors of each level of the pyramid, ascending, as many on each.

    They are a geometric series from the smallest object to the largest with ratios of at most 1.5.
    """
    levels = sum(largest_px >= _PER_STRIDE * stride for stride in _STRIDES) or 1
    count = math.ceil(math.log(largest_px / smallest_px, _STEP)) + 1
    each = -(-count // levels)
    step = (largest_px / smallest_px) ** (1 / max(levels * each - 1, 1))
    sizes = [smallest_px * step**number for number in range(levels * each)]
    return [tuple(sizes[level * each : (level + 1) * each]) for level in range(levels)]


def targets_of(classes: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """Return ``boxes``, ``labels`` and ``masks`` of the objects of one image, as torchvision takes them.

    The class of an object is the most frequent one of its pixels that is not background.

    Parameters
    ----------
    classes, ids : (H, W) tensor
        Of integers; an object without a pixel of a class is left out.
    """
    present = ids[(ids > 0) & (classes > 0)].unique()  # type: ignore[no-untyped-call]
    masks = ids == present.view(-1, 1, 1)
    labels = [classes[mask & (classes > 0)].mode().values for mask in masks]
    boxes = masks_to_boxes(masks) if len(present) else ids.new_zeros((0, 4))
    return {
        "boxes": boxes.float() + boxes.new_tensor([0, 0, 1, 1]).float(),  # up to the end of the last pixel
        "labels": torch.stack(labels) if labels else classes.new_zeros(0),
        "masks": masks.to(torch.uint8),
    }


class _Finest(ExtraFPNBlock):  # type: ignore[misc]
    """Leaves only the finest levels of a pyramid."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, results: list[Tensor], x: list[Tensor], names: list[str]) -> tuple[list[Tensor], list[str]]:  # noqa: ARG002
        """Return the first of the results and of their names."""
        return results[: self.count], names[: self.count]


class _Proposals(RegionProposalNetwork):  # type: ignore[misc]
    """Proposals whose number, before and after suppression, depends on the area of the image."""

    def __init__(self, sizes: list[tuple[float, ...]], channels: int) -> None:
        anchors = AnchorGenerator(tuple(sizes), (_RATIOS,) * len(sizes))
        head = RPNHead(channels, len(sizes[0]) * len(_RATIOS))
        super().__init__(anchors, head, 0.7, 0.3, _ANCHORS_TO_LEARN, 0.5, {}, {}, 0.7)
        self.most = _FEWEST

    def pre_nms_top_n(self) -> int:
        """Return the number of each level before suppression."""
        return 2 * self.most

    def post_nms_top_n(self) -> int:
        """Return the number of all levels after suppression."""
        return self.most


def _heads(levels: list[str], channels: int, num_classes: int, score: float) -> RoIHeads:
    hidden = 4 * channels  # 1024 as published
    return RoIHeads(
        MultiScaleRoIAlign(levels, output_size=_BOX_CELLS, sampling_ratio=2),
        TwoMLPHead(channels * _BOX_CELLS**2, hidden),
        FastRCNNPredictor(hidden, num_classes),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=_BOXES_TO_LEARN,
        positive_fraction=_MASKS_SHARE,
        bbox_reg_weights=None,
        score_thresh=score,
        nms_thresh=0.5,
        detections_per_img=_FEWEST,
        mask_roi_pool=MultiScaleRoIAlign(levels, output_size=_MASK_CELLS, sampling_ratio=2),
        mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
        mask_predictor=MaskRCNNPredictor(channels, channels, num_classes),
    )


def _detections(found: dict[str, Tensor], shape: tuple[int, int]) -> list[Detection]:
    """Return the objects of one image: masks are resampled into their boxes as by torchvision, box by box."""
    masks, scale = expand_masks(found["masks"].float().cpu(), padding=1)
    boxes = expand_boxes(found["boxes"].float().cpu(), scale).to(torch.int64).tolist()
    numbers, scores = found["labels"].tolist(), found["scores"].float().tolist()
    objects = []
    for number, score, (left, top, right, bottom), mask in zip(numbers, scores, boxes, masks, strict=True):
        size = (max(bottom - top + 1, 1), max(right - left + 1, 1))
        shown = F.interpolate(mask[None], size=size, mode="bilinear", align_corners=False)[0, 0] > _INSIDE
        whole = detection_of(number, score, top, left, shown.numpy())
        if whole and (inside := whole.within(shape)):
            objects.append(inside)
    return objects


def _within(name: str, value: float | Auto, *, most: float) -> float:
    if value == "auto":
        return _USUAL[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise ValueError(f"{name} must be above 0 and at most {most:,g}, or 'auto', got {value!r}")
    return float(value)
