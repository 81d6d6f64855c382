"""Encoders from classifiers: VGG-16 and ResNet of any width, with the names of layers of torchvision.

Simonyan, Zisserman (2015), "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv:1409.1556.
He, Zhang, Ren, Sun (2016), "Deep Residual Learning for Image Recognition", doi:10.1109/CVPR.2016.90.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from models.layers.blocks import convolution, initialize

VGG16 = ((1, 1), (2, 2), (4, 4, 4), (8, 8, 8), (8, 8, 8))  # five levels, in multiples of the width
_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
RESNETS = tuple(_BLOCKS)


def vgg16_levels(in_channels: int, width: int, *, batch_norm: bool) -> nn.ModuleList:
    """Return the 13 convolutions of VGG-16 as five levels, without the poolings between them.

    Layers are numbered across levels as in ``features`` of torchvision, so that its weights load by name.
    """
    levels, number, channels = nn.ModuleList(), 0, in_channels
    for level in VGG16:
        layers = nn.Sequential()
        for factor in level:
            for layer in convolution(channels, factor * width, normalization="batch" if batch_norm else "none"):
                layers.add_module(str(number), layer)
                number += 1
            channels = factor * width
        levels.append(layers)
        number += 1  # the pooling
    return levels.apply(initialize)


def mirror_vgg16(width: int, layers: Callable[[int, int], list[nn.Module]]) -> nn.ModuleList:
    """Return the mirror image of :func:`vgg16_levels`, from the deepest level to ``width`` channels at full resolution.

    ``layers(narrow, wide)`` makes one convolution with what follows it.
    """
    levels, channels = nn.ModuleList(), VGG16[-1][-1]
    for level, above in zip(reversed(VGG16), [*reversed(VGG16[:-1]), VGG16[0][:1]], strict=True):
        mirrored = nn.Sequential()
        for factor in [*level[1:], above[-1]]:
            mirrored.extend(layers(channels * width, factor * width))
            channels = factor
        levels.append(mirrored)
    return levels.apply(initialize)


def load_vgg16(levels: nn.ModuleList, state: Mapping[str, Tensor]) -> None:
    """Load ``features`` of torchvision into :func:`vgg16_levels`; all must match."""
    features = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    own = {name.split(".", 1)[1]: tensor for name, tensor in levels.state_dict(keep_vars=True).items()}
    load_all(own, features)


class ResNet(nn.Module):
    """ResNet without its classifier, layers named as in torchvision.

    Parameters
    ----------
    depth : {18, 34, 50, 101, 152}
    in_channels, width : int
        Channels of the image and of the first stage (64 as published).
    output_stride : {8, 16, 32}
        Total down-sampling. Below 32, the last stages are dilated instead of down-sampled; not for 18 and 34.
    """

    def __init__(self, depth: int, *, in_channels: int, width: int = 64, output_stride: int = 32) -> None:
        super().__init__()
        self._block = Bottleneck if depth >= 50 else BasicBlock
        self._channels, self._dilation, self._stride = width, 1, 4
        self.conv1 = nn.Conv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        for stage, blocks in enumerate(_BLOCKS[depth]):
            layers = self._stage(width * 2**stage, blocks, 1 if stage == 0 else 2, output_stride)
            self.add_module(f"layer{stage + 1}", layers)
        self.channels = [width * 2**stage * self._block.expansion for stage in range(4)]
        self.apply(initialize)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the stem's output and that of the four stages."""
        features = [self.relu(self.bn1(self.conv1(image)))]
        image = self.maxpool(features[0])
        for number in (1, 2, 3, 4):
            image = self.get_submodule(f"layer{number}")(image)
            features.append(image)
        return features

    def _stage(self, planes: int, blocks: int, stride: int, output_stride: int) -> nn.Sequential:
        """Return one stage; its first block has the dilation of the stage before, as in torchvision."""
        first_dilation = self._dilation
        if self._stride * stride > output_stride:
            self._dilation *= stride
            stride = 1
        self._stride *= stride
        wide = planes * self._block.expansion
        shortcut = None
        if stride != 1 or self._channels != wide:
            shortcut = nn.Sequential(
                nn.Conv2d(self._channels, wide, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(wide)
            )
        layers = [self._block(self._channels, planes, stride, shortcut, dilation=first_dilation)]
        layers += [self._block(wide, planes, dilation=self._dilation) for _ in range(1, blocks)]
        self._channels = wide
        return nn.Sequential(*layers)


def load_resnet(encoder: ResNet, state: Mapping[str, Tensor]) -> None:
    """Load the weights of torchvision without those of the classifier; all must match."""
    features = {name: value for name, value in state.items() if not name.startswith("fc.")}
    load_all(encoder.state_dict(keep_vars=True), features)


def load_all(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy ``state`` into tensors of the same names; only the first convolution may have other channels.

    Raises
    ------
    ValueError
        If a name is missing or left over, or a shape differs.
    """
    counters = {name for name in own if name.endswith("num_batches_tracked")}  # absent from older weight files
    if wrong := sorted((set(own) ^ set(state)) - counters):
        raise ValueError(f"{len(wrong)} weights do not match, the first is {wrong[0]!r}")
    for number, (name, target) in enumerate(own.items()):
        if name not in state:
            continue
        value = adapt_channels(state[name], target.shape[1]) if number == 0 else state[name]
        if value.shape != target.shape:
            raise ValueError(f"{name!r} has the shape {tuple(value.shape)}, the network has {tuple(target.shape)}")
        with torch.no_grad():
            target.copy_(value)


def adapt_channels(kernels: Tensor, channels: int) -> Tensor:
    """Convert RGB kernels (wide, 3, K, K) to another number of input channels.

    Each new channel is the mean of the three, scaled so that the response to a grey image is the same.
    """
    present = kernels.shape[1]
    if channels == present:
        return kernels
    return kernels.mean(dim=1, keepdim=True).expand(-1, channels, -1, -1) * present / channels
