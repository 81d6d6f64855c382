"""Every kind of up-sampling, by hand and against other definitions."""

import pytest
import torch
import torch.nn.functional as F

from models.layers.upsampling import Upsample, bilinear_transposed, upsample

IMAGE = torch.arange(1.0, 5.0).reshape(1, 1, 2, 2)


def transposed(image, kernel, padding=0):
    """Transposed convolution: every pixel adds a kernel."""
    channels = image.shape[1]
    kernels = torch.as_tensor(kernel, dtype=image.dtype).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(image, kernels, stride=2, padding=padding, groups=channels)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nearest", [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]),
        ("bilinear", [[1, 1.25, 1.75, 2], [1.5, 1.75, 2.25, 2.5], [2.5, 2.75, 3.25, 3.5], [3, 3.25, 3.75, 4]]),
        ("bed_of_nails", [[1, 0, 2, 0], [0, 0, 0, 0], [3, 0, 4, 0], [0, 0, 0, 0]]),
        ("max_unpooling", [[1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0], [0, 3, 0, 4]]),
    ],
)
def test_by_hand(kind, expected):
    before = torch.tensor([[9.0, 0, 0, 0], [0, 0, 8, 0], [0, 0, 0, 0], [0, 7, 0, 6]])[None, None]
    _, indices = F.max_pool2d(before, 2, return_indices=True)
    assert upsample(IMAGE, kind, indices)[0, 0].tolist() == expected


def test_nearest_and_nails_are_transposed_convolutions():
    image = torch.rand(2, 3, 5, 4)
    torch.testing.assert_close(upsample(image, "nearest"), transposed(image, [[1, 1], [1, 1]]))
    torch.testing.assert_close(upsample(image, "bed_of_nails"), transposed(image, [[1, 0], [0, 0]]))


def test_bilinear_is_a_transposed_convolution_away_from_the_edge():
    image, tent = torch.rand(2, 3, 6, 7), torch.tensor([0.25, 0.75, 0.75, 0.25])
    inner = (..., slice(1, -1), slice(1, -1))
    expected = transposed(image, tent[:, None] * tent, padding=1)
    torch.testing.assert_close(upsample(image, "bilinear")[inner], expected[inner])
    torch.testing.assert_close(bilinear_transposed(3, 2)(image).detach(), expected)


def test_pooling_undoes_max_unpooling():
    before = torch.rand(2, 3, 8, 6)
    pooled, indices = F.max_pool2d(before, 2, return_indices=True)
    unpooled = upsample(pooled, "max_unpooling", indices)
    torch.testing.assert_close(F.max_pool2d(unpooled, 2), pooled)
    assert (unpooled[unpooled > 0] == before[unpooled > 0]).all()


@pytest.mark.parametrize("kind", ["transposed", "nearest", "bilinear", "bed_of_nails", "max_unpooling"])
def test_the_layer_doubles_the_resolution(kind):
    _, indices = F.max_pool2d(torch.rand(2, 3, 8, 6), 2, return_indices=True)
    assert Upsample(6, 3, kind)(torch.rand(2, 6, 4, 3), indices).shape == (2, 3, 8, 6)


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match="unknown up-sampling 'cubic'"):
        upsample(IMAGE, "cubic")
