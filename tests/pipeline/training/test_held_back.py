"""Images that were held back are labelled as whole ones are, and drawn as evenly spread pixels."""

import numpy as np
import pytest
import torch

import models
from pipeline.metrics.overlap import confusion, mean_over_classes, per_class
from pipeline.prediction.forward import predict_regions
from pipeline.slides.labels import IGNORED
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.held_back import SIDE_PX, label_held_back


@pytest.mark.parametrize("shape", [(97, 60), (700, 530), (1030, 1)])
def test_what_is_drawn_is_every_nth_pixel_of_the_whole_image(shape, generator):
    torch.manual_seed(0)
    network = models.build("unet", in_channels=2, num_classes=3, options={"width": 2, "depth": 2}).eval()
    image = generator.random((2, *shape), dtype=np.float32)
    classes = generator.integers(0, 3, shape).astype(np.uint8)
    classes[:5] = IGNORED
    annotated = Annotated(name="a", image=image, classes=classes, maps=np.ones((1, *shape), np.float16))
    (found,) = label_held_back(network, [annotated], num_classes=3)
    whole = np.zeros(shape, np.uint8)
    for region, labels in predict_regions(network, image, num_classes=3, tile_px=512):
        whole[region.slices] = labels
    step = -(-max(shape) // SIDE_PX)
    np.testing.assert_array_equal(found.predicted, whole[::step, ::step])
    np.testing.assert_array_equal(found.pixels, image[:, ::step, ::step])
    np.testing.assert_array_equal(found.truth, np.where(classes == IGNORED, 0, classes)[::step, ::step])
    assert max(found.truth.shape) <= SIDE_PX
    expected = mean_over_classes(per_class("dice", confusion(classes, whole, num_classes=3))[1:])
    assert found.foreground_dice == pytest.approx(expected)
