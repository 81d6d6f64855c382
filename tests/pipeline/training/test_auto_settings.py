"""Settings that are `auto` follow the rules, fit into memory, and do not change other settings."""

import logging
import math
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import models
from models.base.cost import training_bytes_per_px
from models.base.geometry import Geometry
from pipeline.base.errors import ConfigError, SlidemillError
from pipeline.project.training_pairs import TrainingPair, find_pairs
from pipeline.settings.networks import ModelConfig, ResolvedConfig
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import LabelConfig
from pipeline.training.auto_settings import (
    StepMemory,
    batch_doubt,
    choose_batch,
    choose_depth,
    choose_patch,
    measure_step,
    resolve,
)
from pipeline.training.data.training_set import TrainingSet, describe_training_set, typical_diameter
from pipeline.training.step import check_patch

ONE_CHANNEL = {"in_channels": 1, "num_classes": 2}
NUCLEI = TrainingSet(side_px=512, object_px=21.0)
THIN = {"width": 2, "depth": 2}


def step(*, stride_px=16, margin_px=0, fixed_bytes=0, bytes_per_px=1000):
    geometry = Geometry(stride_px=stride_px, context_px=margin_px + 2, margin_px=margin_px)
    return StepMemory(geometry=geometry, fixed_bytes=fixed_bytes, bytes_per_px=bytes_per_px)


@pytest.mark.parametrize(
    ("side_px", "memory_mb", "patch_px", "batch_size"),
    [
        (512, 8000, 256, 4),  # four patches of 256 px are a step
        (250, 8000, 256, 4),  # mirrored by six pixels
        (130, 8000, 144, 12),  # 262144 / 144² = 12.6
        (40, 8000, 64, 16),  # four cells of 16 px at least, sixteen patches at most
        (512, 100, 144, 4),  # 100,000 px fit: 158² in each of four
        (512, 17, 64, 4),
        (512, 9, 64, 2),
    ],
)
def test_patch_and_batch_by_hand(side_px, memory_mb, patch_px, batch_size):
    one = step()
    chosen = choose_patch(ModelConfig(), TrainingSet(side_px=side_px, object_px=None), one, memory_mb)
    assert chosen == patch_px
    assert choose_batch(chosen, one, memory_mb, least=1) == batch_size


steps = st.builds(
    step,
    stride_px=st.sampled_from([1, 4, 8, 16, 32, 64]),
    margin_px=st.integers(0, 100),
    fixed_bytes=st.integers(0, 2 * 10**9),
    bytes_per_px=st.integers(100, 20_000),
)


def pixels_of_a_step(one, side_px, memory_mb, least):
    patch_px = choose_patch(ModelConfig(), TrainingSet(side_px=side_px, object_px=None), one, memory_mb)
    check_patch(one.geometry, patch_px)
    try:
        return patch_px**2 * choose_batch(patch_px, one, memory_mb, least=least)
    except ConfigError:
        return 0


@given(one=steps, side_px=st.integers(1, 5000), memory_mb=st.integers(1, 20_000), least=st.sampled_from([1, 2]))
def test_a_step_fits_into_memory_and_never_shrinks_with_more_memory(one, side_px, memory_mb, least):
    pixels = pixels_of_a_step(one, side_px, memory_mb, least)
    assert pixels == 0 or one.needed_mb(pixels) <= memory_mb
    assert pixels_of_a_step(one, side_px, 2 * memory_mb, least) >= pixels


@pytest.mark.parametrize(
    ("object_px", "side_px", "depth"),
    [(7, 512, 2), (8, 512, 3), (15, 512, 3), (16, 512, 4), (31, 512, 4), (32, 512, 5), (200, 512, 5), (200, 127, 4)],
)
def test_depth_spans_three_objects_if_the_images_allow(object_px, side_px, depth):
    """The context of a U-Net is 6 2^depth - 2: 22, 46, 94 and 190 px; sides are at least four cells of 2^depth."""
    config = ModelConfig(options={"width": 2, "depth": "auto"})
    assert choose_depth(config, TrainingSet(side_px=side_px, object_px=object_px), ONE_CHANNEL) == depth


def test_the_patch_limits_the_depth():
    config = ModelConfig(options={"width": 2, "depth": "auto"}, patch_px=32)
    assert choose_depth(config, NUCLEI, ONE_CHANNEL) == 3


@pytest.mark.parametrize("architecture", ["unet", "attention_unet"])
@pytest.mark.parametrize("data", [NUCLEI, TrainingSet(side_px=20, object_px=4.0)])
def test_the_depth_is_one_that_the_other_options_allow(architecture, data):
    """Deep supervision needs a depth of 3; images smaller than its patches are mirrored."""
    options = {"width": 2, "depth": "auto", "deep_supervision": True}
    config = ModelConfig(architecture=architecture, options=options)
    chosen = resolve(config, data, memory_mb=8000, **ONE_CHANNEL)
    assert chosen.options["depth"] >= 3
    models.build(architecture, options=chosen.options, **ONE_CHANNEL)


def test_the_settings_for_nuclei_and_their_log(caplog):
    caplog.set_level(logging.INFO)
    resolved = resolve(
        ModelConfig(options={"depth": "auto", "normalization": "auto"}), NUCLEI, memory_mb=8000, **ONE_CHANNEL
    )
    assert (resolved.patch_px, resolved.batch_size) == (256, 4)
    assert resolved.options == {"depth": 4, "normalization": "batch"}
    lines = [record.message for record in caplog.records]
    assert [line.split(":")[0] for line in lines] == ["depth 4", "patch_px 256", "batch_size 4", "normalization batch"]
    assert "21 px wide" in lines[0]


def test_a_batch_of_one_has_group_normalization_and_without_objects_the_depth_is_the_default():
    config = ModelConfig(options={"width": 2, "depth": "auto", "normalization": "auto"}, batch_size=1)
    nothing = TrainingSet(side_px=512, object_px=None)
    resolved = resolve(config, nothing, memory_mb=8000, **ONE_CHANNEL)
    assert resolved.options == {"width": 2, "normalization": "group"}


@pytest.mark.parametrize(
    ("normalization", "batch_size", "is_doubtful"), [("batch", 1, True), ("batch", 2, False), ("group", 1, False)]
)
def test_batch_normalization_of_single_patches_is_a_warning(normalization, batch_size, is_doubtful):
    network = models.build("unet", in_channels=1, num_classes=2, options={"width": 4, "normalization": normalization})
    assert bool(batch_doubt(network, batch_size)) == is_doubtful


def test_explicit_settings_stay_and_a_step_beyond_memory_is_a_warning(caplog):
    config = ModelConfig(options=THIN, patch_px=4096, batch_size=7, seed=3, learning_rate=0.5)
    resolved = resolve(config, NUCLEI, memory_mb=2000, **ONE_CHANNEL)
    assert resolved.model_dump() == config.model_dump()
    assert "training.memory_mb is 2000; lower patch_px or batch_size" in caplog.text


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("unet", THIN | {"padding": "valid"}), ("sliding_window", {"width": 2, "hidden": 2}), ("linknet", {"width": 8})],
)
def test_the_patch_fits_every_network(architecture, options):
    config = ModelConfig(architecture=architecture, options=options)
    resolved = resolve(config, TrainingSet(side_px=70, object_px=9.0), memory_mb=8000, **ONE_CHANNEL)
    network = models.build(architecture, options=options, **ONE_CHANNEL)
    check_patch(network.geometry, resolved.patch_px)
    assert resolved.batch_size >= 2


@pytest.mark.parametrize(
    ("settings", "memory_mb", "message"),
    [
        ({"options": THIN}, 1100, r"memory_mb is 1100, a step of 1 patches of \d+ px takes \d+; raise it"),
        ({"architecture": "segnet", "options": {"depth": "auto"}}, 8000, "'segnet' has no option 'depth'; available"),
        ({"architecture": "segnet", "options": {"normalization": "auto"}}, 8000, "no option 'normalization'"),
        ({"architecture": "pspnet", "options": {"depth": "auto"}}, 8000, "depth must be one of"),
    ],
)
def test_settings_that_cannot_be_resolved_are_an_error_of_one_line(settings, memory_mb, message):
    with pytest.raises(ConfigError, match=message):
        resolve(ModelConfig(**settings), NUCLEI, memory_mb=memory_mb, **ONE_CHANNEL)


def test_only_settings_with_a_rule_can_be_auto():
    with pytest.raises(ValidationError, match="options.width cannot be 'auto', only depth, largest_px, .* can"):
        ModelConfig(options={"width": "auto"})
    with pytest.raises(ValidationError, match="options.depth is still 'auto'"):
        ResolvedConfig(options={"depth": "auto"}, patch_px=64, batch_size=1)


def build_without_memory(**options):
    with torch.device("meta"):
        return models.build("unet", options=options, **ONE_CHANNEL)


def test_memory_of_a_step_grows_with_the_width():
    """All maps of a U-Net except image, logits and those of the loss are proportional to its width."""
    narrow, wide, wider = (training_bytes_per_px(build_without_memory(width=w, depth=2)) for w in (8, 16, 24))
    assert wider - wide == pytest.approx(wide - narrow, rel=0.01)
    assert wide - narrow > 0.45 * wide


PEAK = """
import sys, lightning.fabric, monai.losses, models, torch
from pipeline.runtime.device import prepare
prepare(1)
network = models.build("unet", in_channels=1, num_classes=2, options={"width": 16, "depth": 2})
network.to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(network.parameters())
for _ in range(3):
    image = torch.rand(int(sys.argv[1]), 1, 128, 128).to(memory_format=torch.channels_last)
    target = (image[:, 0] > 0.5).long()
    for weight, logits in network.logits_to_train(image):
        loss = torch.nn.functional.cross_entropy(logits, target)
        loss = weight * (loss + monai.losses.DiceLoss(softmax=True, to_onehot_y=True)(logits, target[:, None]))
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak_mb(batch_size):
    command = [sys.executable, "-c", PEAK, str(batch_size)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) * 1024 / 10**6


@pytest.mark.slow
def test_a_real_step_takes_the_estimated_memory():
    planned = measure_step(build_without_memory(width=16, depth=2))
    small, large = peak_mb(2), peak_mb(14)
    assert large <= planned.needed_mb(14 * 128**2)
    assert 0.5 < (large - small) * 10**6 / (12 * 128**2 * planned.bytes_per_px) <= 1


def test_half_of_all_object_pixels_are_in_wider_objects():
    """Four specks and two disks: the specks are 4 of 204 pixels."""
    assert typical_diameter(np.array([1, 1, 0, 1, 1, 100, 100])) == pytest.approx(2 * math.sqrt(100 / math.pi))
    assert typical_diameter(np.array([0, 0])) is None
    assert typical_diameter(np.array([], dtype=np.int64)) is None


@pytest.mark.parametrize("kind", ["instances", "classes"])
def test_a_training_set_is_measured(tmp_path, kind):
    rows, columns = np.ogrid[:80, :120]
    disks = [np.hypot(rows - 20, columns - 20) < 10.5, np.hypot(rows - 55, columns - 80) < 10.5]
    labels = (disks[0] + (2 if kind == "instances" else 1) * disks[1]).astype(np.uint8)
    for folder, pixels in (("images", labels * 100), ("labels", labels)):
        (tmp_path / folder).mkdir()
        for name, crop, size in (("a", pixels, 0.5), ("b", pixels[:40], 0.25), ("c", pixels, None)):
            resolution = {"resolution": (1e4 / size,) * 2, "resolutionunit": "CENTIMETER"} if size else {}
            tifffile.imwrite(tmp_path / folder / f"{name}.tif", crop, **resolution)
    found = describe_training_set(
        find_pairs(tmp_path / "images", tmp_path / "labels"),
        LabelConfig(classes=["background", "disk"], kind=kind),
        ImageConfig(channels=[0]),
        memory_mb=100,
    )
    assert found.side_px == 80
    assert found.object_px == pytest.approx(21, abs=0.3)
    assert sorted(round(size[0], 3) for size in found.pixel_sizes_um) == [0.25, 0.5]


def test_training_images_of_several_pixel_sizes_are_a_warning(caplog):
    data = TrainingSet(side_px=512, object_px=21.0, pixel_sizes_um=[(0.25, 0.25), (0.5, 0.5)])
    resolve(ModelConfig(options=THIN), data, memory_mb=8000, **ONE_CHANNEL)
    assert "0.25 to 0.5 um; image.pixel_size_um brings them to one size" in caplog.text


def test_the_annotated_objects_are_described_in_the_pixels_of_the_network(tmp_path):
    labels = np.zeros((100, 200), np.uint8)
    labels[10:20, 10:20], labels[40:60, 40:60], labels[70:80, 100:110] = 1, 2, 3  # areas of 100, 400 and 100
    pairs = []
    for name, content in (("a", labels), ("b", labels * 0)):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ones((100, 200), np.uint8))
        tifffile.imwrite(tmp_path / f"{name}.labels.tif", content)
        pairs.append(TrainingPair(name=name, image=tmp_path / f"{name}.tif", labels=tmp_path / f"{name}.labels.tif"))
    kind = LabelConfig(classes=["background", "object"], kind="instances")
    found = describe_training_set(pairs, kind, ImageConfig(), memory_mb=1000).objects
    assert found == pytest.approx({"small_area_px": 100, "spread": np.std([0, 0, 2]), "most_per_mpx": 150})
    assert describe_training_set(pairs[1:], kind, ImageConfig(), memory_mb=1000).objects == {}


def test_a_pixel_size_that_leaves_hardly_a_pixel_is_named(tmp_path):
    for name in ("image", "labels"):
        tifffile.imwrite(tmp_path / f"{name}.tif", np.ones((100, 200), np.uint8))
    pair = TrainingPair(name="a", image=tmp_path / "image.tif", labels=tmp_path / "labels.tif")
    view = ImageConfig(pixel_size_um=50.0, fallback_pixel_size_um=0.5)
    kind = LabelConfig(classes=["background", "object"], kind="instances")
    with pytest.raises(SlidemillError, match="^image.pixel_size_um: at 50 µm a training image is 1 px wide or high"):
        describe_training_set([pair], kind, view, memory_mb=1000)
