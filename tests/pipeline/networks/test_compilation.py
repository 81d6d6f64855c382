"""A compiled network gives the same labels and is compiled once; on failure the network is used as it is."""

import logging

import pytest
import torch
from torch._dynamo.utils import counters
from torch._inductor import config as inductor
from torch._inductor.utils import fresh_cache

from pipeline.networks.compilation import compiled
from pipeline.prediction.forward import labels_of, logits_of
from pipeline.prediction.loop import make_ready
from pipeline.tiling.grid import Cut
from tests.support.networks import network_with_batch_stats

SHAPES = [(1, 256, 192), (3, 224, 224), (2, 192, 256), (1, 224, 224), (4, 200, 240)]  # batch, rows, columns


@pytest.fixture
def network():
    network = network_with_batch_stats("unet", num_classes=3, width=4, depth=1)
    make_ready(network, torch.device("cpu"), "float32")
    torch.compiler.reset()
    return network


@pytest.mark.slow
def test_labels_are_equal_and_no_further_size_is_compiled(network):
    with fresh_cache():
        faster = compiled(network)
        assert faster is not network
        before = counters["stats"]["unique_graphs"]
        for number, shape in enumerate(SHAPES):
            generator = torch.Generator().manual_seed(number)
            windows = torch.rand(shape[0], 1, *shape[1:], generator=generator).to(memory_format=torch.channels_last)
            exact, found = (logits_of(one, windows, Cut.all_sides(0)) for one in (network, faster))
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)
            best = exact.topk(2, dim=1).values
            sure = best[:, 0] - best[:, 1] > 1e-3
            assert torch.equal(labels_of(found)[sure], labels_of(exact)[sure])
        assert counters["stats"]["unique_graphs"] == before


def test_without_a_compiler_the_network_is_not_compiled(network, monkeypatch, caplog):
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    with fresh_cache(), caplog.at_level(logging.WARNING, "pipeline"):
        assert compiled(network) is network
    (line,) = [record.message for record in caplog.records if record.name == "pipeline.networks.compilation"]
    assert line.startswith("prediction.compile: not used, since torch.compile failed: ")
    assert "no-such-compiler" in line
    assert "\n" not in line
