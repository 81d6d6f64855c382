"""Mask R-CNN is torchvision's: the same losses, boxes and masks; anchors and limits follow from the objects."""

from itertools import pairwise

import pytest
import safetensors.torch
import torch
import torchvision
from torchvision.models.detection.anchor_utils import AnchorGenerator

import models
from models.base.detection import Detection, detection_of, paint_logits
from models.mask_rcnn import anchor_sizes, targets_of
from pipeline.networks.model_sheet import model_sheet
from pipeline.prediction.detections.merge import mask_iou
from tests.support.detection import planted_discs

PARTS = ("box_roi_pool", "box_head", "box_predictor", "mask_roi_pool", "mask_head", "mask_predictor")
OPTIONS = {"width": 8, "smallest_px": 8, "largest_px": 40, "objects_per_mpx": 500}


def build(*, in_channels=1, num_classes=2, **options):
    torch.manual_seed(0)
    return models.build("mask_rcnn", in_channels=in_channels, num_classes=num_classes, options=OPTIONS | options)


@pytest.fixture
def batch():
    """Images, classes and ids: squares of 10 to 30 px; the second image has no object."""
    torch.manual_seed(0)
    image, classes, ids = torch.rand(2, 1, 96, 128), torch.zeros(2, 96, 128).long(), torch.zeros(2, 96, 128)
    for number, (top, left, side) in enumerate([(4, 4, 10), (30, 40, 30), (60, 90, 20)], start=1):
        ids[0, top : top + side, left : left + side] = number
    classes[0] = (ids[0] > 0).long()
    return image + classes[:, None], classes, ids


def of_torchvision(network):
    """Torchvision's own model around parts of ours, with the same weights."""
    rpn, heads = network.rpn, network.roi_heads
    return torchvision.models.detection.MaskRCNN(
        network.pyramid,
        min_size=96,
        max_size=128,
        image_mean=[0.0],
        image_std=[1.0],
        _skip_resize=True,
        rpn_anchor_generator=AnchorGenerator(rpn.anchor_generator.sizes, rpn.anchor_generator.aspect_ratios),
        rpn_head=rpn.head,
        rpn_pre_nms_top_n_train=200,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=100,
        box_batch_size_per_image=64,
        box_score_thresh=heads.score_thresh,
        **{name: getattr(heads, name) for name in PARTS},
    )


def test_losses_are_those_of_torchvision(batch):
    image, classes, ids = batch
    network = build().train()
    reference = of_torchvision(network).train()
    torch.manual_seed(1)
    losses = network.losses(image, classes, ids)
    torch.manual_seed(1)
    expected = reference(list(image), [targets_of(*one) for one in zip(classes, ids, strict=True)])
    assert list(losses) == ["class", "box", "mask", "objectness", "proposal"]
    for own, other in zip(losses.values(), expected.values(), strict=True):
        torch.testing.assert_close(own, other)
    assert all(loss.isfinite() for loss in losses.values())


@torch.no_grad()
def test_objects_are_those_of_torchvision(batch):
    image = batch[0]
    network = build()
    learn(network, batch, steps=40)
    network.eval()
    reference = of_torchvision(network).eval()
    found, expected = network.detect(image), reference(list(image))
    assert any(found)
    for own, other in zip(found, expected, strict=True):
        whole = other["masks"][:, 0] > 0.5
        assert len(own) == int(whole.flatten(1).any(1).sum())
        for one, mask, score, label in zip(own, whole, other["scores"], other["labels"], strict=True):
            assert (one.number, one.score) == (int(label), pytest.approx(float(score)))
            pasted = torch.zeros(96, 128, dtype=torch.bool)
            pasted[one.slices] = torch.from_numpy(one.mask)
            assert torch.equal(pasted, mask)


@torch.enable_grad()
def learn(network, batch, *, steps):
    """Train on one batch, with a rate that falls in the second half; return the sum of the losses of each step."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 2 * (1 - step / steps)))
    totals = []
    for step in range(steps):
        torch.manual_seed(step)
        total = torch.stack(list(network.losses(*batch).values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        totals.append(total.item())
    return totals


def test_every_parameter_learns_and_the_loss_falls(batch):
    network = build()
    totals = learn(network, batch, steps=20)
    assert totals[-1] < totals[0] / 2, totals
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_targets_are_boxes_to_the_end_of_pixels_and_the_class_of_most():
    ids, classes = torch.zeros(8, 8), torch.zeros(8, 8).long()
    ids[1:4, 2:7], classes[1:4, 2:7] = 5, 2
    classes[1, 2] = 1  # a pixel of another class
    classes[3] = 0  # the line of background to a neighbour
    ids[6, 6] = 9  # without a class
    targets = targets_of(classes, ids)
    assert targets["boxes"].tolist() == [[2, 1, 7, 4]]
    assert targets["labels"].tolist() == [2]
    assert torch.equal(targets["masks"][0].bool(), ids == 5)
    nothing = targets_of(torch.zeros(8, 8).long(), torch.zeros(8, 8))
    assert [nothing[name].shape for name in ("boxes", "labels", "masks")] == [(0, 4), (0,), (0, 8, 8)]


def test_anchors_reach_from_the_smallest_object_to_the_largest():
    assert anchor_sizes(8, 8) == [(8,)]
    assert len(anchor_sizes(8, 63)) == 2  # 63 px are not 4 strides of 16
    for smallest, largest in ((4, 15), (8, 60), (10, 500)):
        levels = anchor_sizes(smallest, largest)
        sizes = [size for level in levels for size in level]
        assert sizes[0] == pytest.approx(smallest)
        assert sizes[-1] == pytest.approx(largest)
        assert all(1 < wide / narrow <= 1.5 for narrow, wide in pairwise(sizes))
        assert len({len(level) for level in levels}) == 1
        assert 4 * (4, 8, 16, 32)[len(levels) - 1] <= max(largest, 16)


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (2, 4), (3, 3)])
def test_any_channels_and_classes(channels, classes):
    network = build(in_channels=channels, num_classes=classes).eval()
    with torch.inference_mode():
        logits = network(torch.randn(2, channels, 64, 96))
    assert logits.shape == (2, classes, 64, 96)
    assert logits.isfinite().all()


def test_weights_are_saved_and_loaded(batch, tmp_path):
    network, other = build().eval(), build(score=0.5).eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(safetensors.torch.load_file(tmp_path / "weights.safetensors"))
    with torch.inference_mode():
        assert torch.equal(network(batch[0]), other(batch[0]))


def test_the_sheet_is_measured_without_weights_and_the_halo_holds_an_object():
    sheet = model_sheet("mask_rcnn", options=OPTIONS)
    assert sheet.tiling == "objects"
    assert (sheet.geometry.context_px, sheet.geometry.object_px, sheet.geometry.halo_px) == (None, 40, 64)
    denser = model_sheet("mask_rcnn", options=OPTIONS | {"objects_per_mpx": 5000})
    assert denser.bytes_per_px > sheet.bytes_per_px
    assert denser.gflops_per_mpx > sheet.gflops_per_mpx > 1


def test_the_number_of_proposals_follows_from_the_area():
    network = build(objects_per_mpx=2000).eval()
    with torch.inference_mode():
        network.detect(torch.zeros(1, 1, 512, 512))
    assert network.rpn.most == 2098  # 4 per object that is expected
    assert network.roi_heads.detections_per_img == 1049


def test_a_pixel_has_the_class_of_the_surest_object_there():
    square = torch.ones(3, 3, dtype=torch.bool).numpy()
    found = [Detection(1, 0.75, 0, 0, square), Detection(2, 0.9, 1, 1, square)]
    logits = torch.from_numpy(paint_logits(found, (5, 5), num_classes=3))
    assert logits.argmax(0).tolist() == [
        [1, 1, 1, 0, 0],
        [1, 2, 2, 2, 0],
        [1, 2, 2, 2, 0],
        [0, 2, 2, 2, 0],
        [0, 0, 0, 0, 0],
    ]
    assert logits.softmax(0)[1, 0, 0] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be a whole number of at least 1, got 0"),
        ({"backbone": "vgg16"}, "backbone must be one of resnet18, resnet34, resnet50, got 'vgg16'"),
        ({"smallest_px": 50}, "smallest_px must be at most largest_px, got 50 and 40"),
        ({"largest_px": -1}, "largest_px must be above 0 and at most 10,000, or 'auto', got -1"),
        ({"largest_px": float("inf")}, "largest_px must be above 0 and at most 10,000, or 'auto', got inf"),
        ({"objects_per_mpx": 1e9}, "objects_per_mpx must be above 0 and at most 100,000, or 'auto', got 1000000000.0"),
        ({"score": 0.3}, "score must be a number of at least 0.5 and below 1, got 0.3"),
        ({"score": "x"}, "score must be a number of at least 0.5 and below 1, got 'x'"),
        ({"widht": 8}, "model 'mask_rcnn' has no option 'widht'; available: backbone, width"),
    ],
)
def test_wrong_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_heads_are_refused():
    with pytest.raises(ValueError, match="mask_rcnn finds objects one by one and has no heads; remove distance"):
        models.build("mask_rcnn", in_channels=1, num_classes=2, heads=["distance"])


def test_imagenet_weights_of_a_resnet_fill_the_backbone_for_any_channels():
    state = torchvision.models.resnet18(weights=None).state_dict()
    network = build(in_channels=2, width=64)
    network.load_backbone(state)
    assert torch.equal(network.encoder.layer4[1].conv2.weight, state["layer4.1.conv2.weight"])
    assert network.backbone == "resnet18"


def test_objects_of_one_pixel_have_finite_losses():
    ids = torch.zeros(1, 64, 64, dtype=torch.int64)
    ids[0, 4::8, 4::8] = torch.arange(1, 65).view(8, 8)
    network = build(smallest_px=1, largest_px=1).train()
    losses = network.losses(torch.rand(1, 1, 64, 64), (ids > 0).long(), ids)
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.slow
def test_an_image_of_twenty_objects_is_learned_by_heart():
    """AP at IoU 0.5 (matched / (matched + missed + spurious)) of at least 0.95."""
    ids = torch.from_numpy(planted_discs(5, 4, pitch=32, seed=1))[None]
    torch.manual_seed(0)
    image = torch.rand(1, 1, *ids.shape[1:]) / 2 + (ids > 0)[:, None]
    network = build(width=16, smallest_px=5, largest_px=19, objects_per_mpx=1000)
    learn(network, (image, (ids > 0).long(), ids.float()), steps=200)
    with torch.inference_mode():
        (found,) = network.eval().detect(image)
    truth = [detection_of(1, 1.0, 0, 0, (ids[0] == number).numpy()) for number in range(1, 21)]
    matched = sum(any(mask_iou(one, other) >= 0.5 for other in found) for one in truth)
    assert matched / (len(found) + len(truth) - matched) >= 0.95
