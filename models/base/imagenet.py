"""ImageNet weights of torchvision's classifiers, from its cache or its server."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def imagenet_weights(backbone: str) -> Mapping[str, Tensor]:
    """Return torchvision's ImageNet weights of a classifier, from its cache or its server.

    Raises
    ------
    OSError
        If they are not cached and cannot be downloaded; the message has advice.
    """
    from torchvision.models import get_model_weights  # noqa: PLC0415  takes 2 s, and few networks need it

    weights = get_model_weights(backbone).DEFAULT
    try:
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise OSError(
            f"ImageNet weights of {backbone} are not on this machine and cannot be downloaded ({error}); put "
            f"{weights.url} into {torch.hub.get_dir()}/checkpoints, or set `pretrained` to the path of such a file"
        ) from error
    return state
