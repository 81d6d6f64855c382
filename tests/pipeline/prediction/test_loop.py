"""Writing behind keeps the order and all errors; windows that exceed the memory are refused."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from scipy.special import softmax

from pipeline.base.errors import ConfigError
from pipeline.networks.weights_file import load_network
from pipeline.prediction.forward import crop_to, logits_of
from pipeline.prediction.loop import make_ready, segment_slides, write_behind
from pipeline.prediction.results import Target
from pipeline.prediction.store import head_of, open_prediction
from pipeline.runtime.job_limits import Limit
from pipeline.settings.schema import ImageConfig
from pipeline.settings.stage_sections import TileConfig
from pipeline.slides.intensity import Statistics, normalize
from pipeline.slides.slide import open_slide
from pipeline.tiling.grid import Grid
from pipeline.tiling.mirror_padding import read_mirrored
from pipeline.tiling.plan_slide import plan_slide
from tests.support.networks import network_with_batch_stats, write_network
from tests.support.prediction import plan_of


def test_items_are_consumed_in_order_in_another_thread():
    seen = []

    def consume(item):
        seen.append((item, threading.current_thread()))
        return 10 * item

    with write_behind(consume) as put:
        assert [put(item) for item in range(5)] == [None, 0, 10, 20, 30]
        assert put(None) == 40
        assert [item for item, _ in seen] == list(range(5))
    assert threading.current_thread() not in {thread for _, thread in seen}


@pytest.mark.parametrize("after", [2, None])
def test_a_failure_to_write_stops_the_next_item_and_is_not_lost_at_the_last(after):
    def consume(item):
        if item == 1:
            raise OSError(f"disk full at {item}")

    with write_behind(consume) as put:
        put(0)
        put(1)
        with pytest.raises(OSError, match="disk full at 1"):
            put(after)


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_tf32_is_allowed_if_it_is_asked_for_and_not_after(precision):
    networks = [network_with_batch_stats("unet", width=2) for _ in range(2)]
    for one, network in zip((precision, "float32"), networks, strict=True):
        make_ready(network, torch.device("cpu"), one)
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == (one == "tf32")


def test_boxes_are_not_predicted_in_tf32(caplog):
    with caplog.at_level("INFO"):
        make_ready(network_with_batch_stats("mask_rcnn", width=2), torch.device("cpu"), "tf32")
    assert not torch.backends.cuda.matmul.allow_tf32
    assert "tf32 is too coarse for boxes" in caplog.text


@pytest.mark.parametrize("name", ["unet", "pspnet"])
def test_heads_are_the_channels_after_the_classes_between_0_and_1(tmp_path, generator, name):
    """Of one window, which the blended one is then too."""
    network = network_with_batch_stats(name, num_classes=3, width=4)
    card = replace(load_network(write_network(tmp_path, name, width=4))[1], heads=["distance"])
    tifffile.imwrite(tmp_path / "a.tif", generator.integers(0, 255, (40, 50)).astype(np.uint8))
    config = TileConfig(image=ImageConfig(), tile_px=64, mirror_px=16, skip_glass=False)
    plan = plan_slide(tmp_path / "a.tif", card, 1000, config)
    target = Target(sample="a", plan=plan, path=tmp_path / "a.zarr.zip", identity="1")
    ((_, measured),) = segment_slides(
        [network], card, [target], probabilities=True, heads=True, memory_mb=1000, threads=1
    )
    with open_slide(tmp_path / "a.tif", memory_mb=100) as slide:
        image = normalize(slide.read_all(), plan.statistics)
    (tile,) = plan.tiles()
    window = read_mirrored(lambda rows, columns: image[:, rows, columns], plan.grid.shape, tile.read)
    output = logits_of(network, torch.from_numpy(window)[None], tile.cut)
    whole = crop_to(output[..., plan.grid.overlap_px :, plan.grid.overlap_px :], tile)[0].numpy()
    assert measured.heads
    with open_prediction(target.path) as group:
        np.testing.assert_allclose(group["heads"][:], 255 * whole[2:].clip(0, 1), atol=0.5 + 1e-2)
        np.testing.assert_array_equal(head_of(group, "distance")[3:9, 4:7], group["heads"][0, 3:9, 4:7])
        assert head_of(group, "boundary") is None
        np.testing.assert_allclose(group["probabilities"][:], softmax(whole[:2], axis=0), atol=1e-3)
        assert group["labels"][:].max() < 2


def test_windows_that_exceed_the_memory_of_the_job_are_refused_before_reading(tmp_path, monkeypatch):
    network, card = load_network(write_network(tmp_path, width=2))
    grid = Grid(shape=(4000, 4000), tile=(2048, 2048), halo_px=96, surround_px=96, stride_px=16)
    plan = plan_of(grid, statistics=[Statistics(minimum=0, maximum=1, mean=0.5, low=0, high=1)])
    monkeypatch.setattr("pipeline.prediction.loop.memory_limit", lambda: Limit(900, "memory.max"))
    target = Target(sample="a", plan=plan, path=tmp_path / "a.zarr.zip", identity="1")
    with pytest.raises(ConfigError, match=r"this job may take 900 MB \(memory.max\)"):
        next(segment_slides([network], card, [target], probabilities=False, memory_mb=4000, threads=1))
