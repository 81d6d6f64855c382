"""Where a training is: what an interrupted one goes on from, in one file that is there complete or not at all.

The file is a safetensors: the tensors of the network, the optimizer, the average and the best network so far; all else
is JSON in its metadata. Nothing is pickled. The patches and the dropout of a step follow from the seed and the number
of the step alone, so there is no state of random numbers to keep.
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

log = logging.getLogger(__name__)

HistoryRow = dict[str, float]

STATE = "state.safetensors"


@dataclass(kw_only=True)
class TrainingState:
    """How far a training is, and its tensors by part (``network``, ``optimizer``, ``average``, ``best``) and name.

    ``elapsed_s`` counts all tries. ``scaler`` is what float16 needs to know of its steps. Of a training that is over
    and whose network is written, the best network is all that is left of the tensors.
    """

    step: int = 0
    over: bool = False
    elapsed_s: float = 0.0
    history: list[HistoryRow] = field(default_factory=list)
    chosen: HistoryRow | None = None
    scaler: dict[str, float] = field(default_factory=dict)
    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def record(self, network: nn.Module, record: HistoryRow, *, last: bool) -> None:
        """Add a record to the history, and keep the network if it scores higher than the best before it.

        With ``last`` it is kept whatever it scores: the held-back images must choose nothing.
        """
        self.history.append(record)
        best = -math.inf if self.chosen is None else self.chosen["dice_mean"]
        if last or record["dice_mean"] > best:
            self.chosen = record
            self.tensors["best"] = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}

    def validations_since_best(self) -> int:
        """Return how many records were no better than the chosen one."""
        later = (record["step"] > self.chosen["step"] if self.chosen else True for record in self.history)
        return sum(later)

    def capture(
        self,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None,
        scaler: Mapping[str, float],
    ) -> None:
        """Take the tensors of a training."""
        self.tensors["network"] = network.state_dict()
        self.tensors["optimizer"] = {
            f"{index}.{name}": value
            for index, values in optimizer.state_dict()["state"].items()
            for name, value in values.items()
        }
        self.tensors["average"] = average.module.state_dict() if average else {}
        self.scaler = dict(scaler)

    def restore(self, network: nn.Module, optimizer: torch.optim.Optimizer, average: AveragedModel | None) -> None:
        """Give a training its tensors back."""
        network.load_state_dict(self.tensors["network"])
        if average:
            average.module.load_state_dict(self.tensors["average"])
            average.n_averaged.fill_(self.step)
        content = optimizer.state_dict()
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        of_parameter: dict[int, dict[str, Tensor]] = {}
        for key, value in self.tensors["optimizer"].items():
            index, name = key.split(".", 1)
            of_parameter.setdefault(int(index), {})[name] = _in_order_of(parameters[int(index)], value)
        optimizer.load_state_dict(content | {"state": of_parameter})


def write_state(path: Path, identity: str, state: TrainingState) -> None:
    """Write a state, in place of the one before it.

    Parameters
    ----------
    identity : str
        What the training is of, settings and data: the state is of no use to another one.
    """
    flat = {
        f"{part}/{name}": value.detach().cpu().contiguous()
        for part, tensors in state.tensors.items()
        for name, value in tensors.items()
    }
    progress = {name: getattr(state, name) for name in ("step", "over", "elapsed_s", "history", "chosen", "scaler")}
    with replacing(path) as temporary:
        safetensors.torch.save_file(flat, temporary, {"identity": identity, "progress": json.dumps(progress)})


def read_state(path: Path, identity: str) -> TrainingState | None:
    """Return the state in a file; None where there is none, it is of another training, or it is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("identity") != identity:
                log.info("%s is of other settings or data: training begins anew", path)
                return None
            progress: dict[str, Any] = json.loads(metadata["progress"])
            state = TrainingState(**progress)
            for key in file.keys():  # noqa: SIM118  not a mapping
                part, name = key.split("/", 1)
                state.tensors.setdefault(part, {})[name] = file.get_tensor(key)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s): training begins anew", path, error)
        return None
    for part in ("network", "optimizer", "average"):
        state.tensors.setdefault(part, {})
    return state


def _in_order_of(parameter: Tensor, value: Tensor) -> Tensor:
    """Return a tensor of the optimizer with the memory order of its parameter, as the optimizer itself makes it."""
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value) if value.shape == parameter.shape else value
