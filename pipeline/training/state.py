"""The state of a training on disk, from which an interrupted training continues.

One safetensors file, replaced as a whole: tensors of the network, the optimizer, the average and the network to keep
so far, and JSON in its metadata. Nothing is pickled. No state of random numbers is needed: patches and dropout follow
from the seed and the number of the step alone.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from pipeline.base.files import replacing
from pipeline.metrics.names import HEADLINE

log = logging.getLogger(__name__)

HistoryRow = dict[str, float]

STATE = "state.safetensors"
_PROGRESS = ("limits", "step", "elapsed_s", "history", "chosen", "scaler")


@dataclass(kw_only=True)
class TrainingState:
    """Progress of a training, and its tensors by part (``network``, ``optimizer``, ``average``, ``kept``) and name.

    ``limits`` are those of steps, seconds and patience under which it got here. ``elapsed_s`` includes interrupted
    runs. ``chosen`` is the row of the kept network. ``scaler`` is the state of the loss scaling of float16.
    """

    limits: list[float] = field(default_factory=list)
    step: int = 0
    elapsed_s: float = 0.0
    history: list[HistoryRow] = field(default_factory=list)
    chosen: HistoryRow | None = None
    scaler: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def record(self, network: nn.Module, row: HistoryRow, *, only_better: bool) -> None:
        """Add a row to the history, and keep the network.

        With ``only_better`` it is kept only if its foreground Dice is higher than that of the kept one, or unknown, as
        of images that have no foreground and are given none.
        """
        self.history.append(row)
        best = -math.inf if self.chosen is None else self.chosen[HEADLINE]
        if not only_better or math.isnan(row[HEADLINE]) or row[HEADLINE] > best:
            self.chosen = row
            self.tensors["kept"] = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}

    def validations_since_best(self) -> int:
        """Return the number of validations after the best one."""
        return sum(self.chosen is None or row["step"] > self.chosen["step"] for row in self.history)

    def capture(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None,
        scaler: Mapping[str, float],
    ) -> None:
        """Store the tensors of a training."""
        self.tensors["network"] = network.state_dict()
        self.tensors["optimizer"] = {
            f"{index}.{name}": value
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        self.tensors["average"] = average.module.state_dict() if average else {}
        self.scaler = dict(scaler)

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None) -> None:
        """Load the stored tensors into a training."""
        network.load_state_dict(self.tensors["network"])
        if average:
            average.module.load_state_dict(self.tensors["average"])
            average.n_averaged.fill_(self.step)
        content = optimizer.state_dict()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        of_parameter: dict[int, dict[str, Tensor]] = {}
        for key, value in self.tensors["optimizer"].items():
            index, name = key.split(".", 1)
            of_parameter.setdefault(int(index), {})[name] = _in_memory_order_of(parameters[int(index)], value)
        optimizer.load_state_dict(content | {"state": of_parameter})


def write_state(path: Path, identity: str, state: TrainingState) -> None:
    """Replace the state on disk; ``identity`` is the hash of settings and data that it belongs to."""
    flat = {
        f"{part}/{name}": value.detach().cpu().contiguous()
        for part, tensors in state.tensors.items()
        for name, value in tensors.items()
    }
    progress = {name: getattr(state, name) for name in _PROGRESS}
    with replacing(path) as temporary:
        safetensors.torch.save_file(flat, temporary, {"identity": identity, "progress": json.dumps(progress)})


def read_state(path: Path, identity: str) -> TrainingState | None:
    """Return the state in a file; None if there is none, or if it is damaged or of another training."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("identity") != identity:
                log.info("%s is of other settings or data: training starts from the beginning", path)
                return None
            progress: dict[str, Any] = json.loads(metadata["progress"])
            state = TrainingState(**progress)
            for key in file.keys():  # noqa: SIM118  not a mapping
                part, name = key.split("/", 1)
                state.tensors.setdefault(part, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s): training starts from the beginning", path, error)
        return None
    for part in ("network", "optimizer", "average"):
        state.tensors.setdefault(part, {})
    return state


def _in_memory_order_of(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a tensor of the optimizer in the memory order of its parameter, as the optimizer itself makes it."""
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.shape == parameter.shape else value
