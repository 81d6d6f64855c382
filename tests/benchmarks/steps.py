"""Time of a training step in each precision, of the network alone, and of waiting for data.

The default U-Net on patches of 256 px, batches of four, with the default augmentation and loss; one process makes the
patches. The micrograph comes with the package stardist.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import models
from models.base.interface import SegmentationModel
from pipeline.settings.networks import ResolvedConfig
from pipeline.slides.intensity import measure_intensities, normalize
from pipeline.training.data.annotated_slides import Annotated
from pipeline.training.data.batches import Batches, worker_count
from pipeline.training.data.patches import RandomPatches
from pipeline.training.loop import Task, train_network
from pipeline.training.processes import start_fabric
from pipeline.training.step import Learner
from tests.benchmarks.common import THREADS, say, say_machine, seconds, set_up
from tests.benchmarks.weight_map import demo_images

_WARM, _STEPS = 3, 12
_CLASSES = ["background", "nucleus"]


def main() -> None:
    """Print the machine, then the figures."""
    say_machine()
    device, nuclei = set_up(), annotated()
    bench_patches(nuclei)
    for precision in ("float32", "bfloat16"):
        bench_step(nuclei, precision, device)
    bench_training(nuclei, device)


def bench_patches(nuclei: Annotated) -> None:
    """Measure how long one core takes to make a patch."""
    torch.set_num_threads(1)
    patches = patches_of(nuclei, settings())
    taken = [seconds(lambda number=number: patches[number]) for number in range(_WARM, 50)]
    torch.set_num_threads(THREADS)
    say("patch", patch_px=settings().patch_px, ms=1000 * statistics.mean(taken))


def bench_step(nuclei: Annotated, precision: str, device: torch.device, **more: object) -> None:
    """Measure steps on batches in memory: the whole step, and the network with its gradients alone."""
    config = settings(precision=precision, **more)
    fabric = start_fabric([device], precision)
    batches = Batches(fabric, patches_of(nuclei, config), batch_size=config.batch_size, first=0)
    batch = next(batches)
    del batches
    network = build(config)
    learner = Learner(fabric, network, config)
    numbers = itertools.count()

    def step() -> None:
        learner.step(batch, rate=config.learning_rate, number=next(numbers))

    image = batch[0].contiguous(memory_format=torch.channels_last)  # on the device of the fabric

    def bare() -> None:
        with learner.autocast():
            logits = network(image)
        loss = logits.float().square().mean()
        loss.backward()
        network.zero_grad()
        loss.item()  # waits for a GPU

    whole_s, bare_s = median_s(step), median_s(bare)
    say("step", precision=precision, threads=THREADS, ms=1000 * whole_s, bare_ms=1000 * bare_s, ratio=whole_s / bare_s)


def bench_training(nuclei: Annotated, device: torch.device) -> None:
    """Measure a whole training: the share of its time spent on waiting, from its history."""
    config = settings(max_steps=40, validate_every=40, max_minutes=1000)
    with tempfile.TemporaryDirectory() as folder:
        task = Task(
            network=build(config),
            training=[nuclei],
            validation=[crop(nuclei, 64)],
            classes=_CLASSES,
            config=config,
            identity="benchmark",
            folder=Path(folder),
        )
        start = time.perf_counter()
        record = train_network(task, [device])
    say(
        "training steps",
        workers=worker_count(THREADS, on_gpu=device.type == "cuda"),
        threads=THREADS,
        steps=int(record["step"]),
        seconds=time.perf_counter() - start,
        steps_per_s=record["steps_per_s"],
        waiting=record["waiting"],
    )


def settings(**more: object) -> ResolvedConfig:
    """Return the default settings of a training, with the default sizes of patches and batches."""
    return ResolvedConfig.model_validate({"patch_px": 256, "batch_size": 4, **more})


def build(config: ResolvedConfig) -> SegmentationModel:
    """Return the default network."""
    torch.manual_seed(config.seed)
    return models.build(config.architecture, in_channels=1, num_classes=len(_CLASSES), options=dict(config.options))


def patches_of(nuclei: Annotated, config: ResolvedConfig) -> RandomPatches:
    """Return the patches of a training."""
    return RandomPatches([nuclei], patch_px=config.patch_px, config=config.augmentation, seed=config.seed)


def annotated() -> Annotated:
    """Return the annotated micrograph."""
    pixels, labels = demo_images()
    scales = measure_intensities(pixels[None])
    return Annotated(
        name="nuclei",
        image=normalize(pixels[None], scales),
        classes=(labels > 0).astype(np.uint8),
        maps=np.ones((1, *labels.shape), np.float16),
    )


def crop(nuclei: Annotated, side_px: int) -> Annotated:
    """Return a corner that is small enough to validate on in no time."""
    corner = slice(side_px), slice(side_px)
    return Annotated(
        name="corner", image=nuclei.image[:, *corner], classes=nuclei.classes[corner], maps=nuclei.maps[:, *corner]
    )


def median_s(work: Callable[[], None]) -> float:
    """Return the median time of calls of ``work``, after a few to warm up."""
    taken = [seconds(work) for _ in range(_WARM + _STEPS)]
    return statistics.median(taken[_WARM:])


if __name__ == "__main__":
    main()
