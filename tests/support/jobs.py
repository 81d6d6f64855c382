"""A project folder whose stages are run one by one, as jobs of one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np

from pipeline.__main__ import main
from pipeline.base import paths
from pipeline.base.errors import Failure
from pipeline.base.files import sha256, state_of
from pipeline.masks.ome_tiff import write_label_images
from pipeline.project.drop.drop_folder import Sample, write_samples
from pipeline.project.jobs.ledger import Entry, ledger_path, network_ledger_path, read_ledger, write_ledger
from pipeline.project.stage_settings import stage_config
from pipeline.settings.schema import parse_settings
from tests.support.commands import run_stage
from tests.support.networks import CLASSES

MODEL, BATCH = "net", "plate/0001"
WITH_NETWORK = ("tile", "predict", "stitch")


class Jobs:
    """The current folder as a project with one network and one batch; ``settings`` are those of the configuration."""

    def __init__(
        self, weights: Path | None = None, *, memory_mb: int = 4000, threads: int = 2, **settings: object
    ) -> None:
        self.weights = weights or Path("network/model.safetensors")
        self.memory_mb = memory_mb
        self.threads = threads
        self.configure(**settings)
        self._samples: dict[str, Sample] = {}
        self._numbers = count()

    def configure(self, **settings: object) -> None:
        """Replace the configuration."""
        self.settings = parse_settings(
            {"classes": CLASSES, "models": {MODEL: {"checkpoint": str(self.weights)}}} | settings, source=""
        )

    def put(self, sample: str, slide: Path, reference: Path | None = None, **row: object) -> None:
        """Add a slide to the batch, or replace it."""
        found = Sample(slide=str(slide), version=state_of(slide), batch=BATCH)
        if reference is not None:
            found = replace(found, reference=str(reference), reference_version=state_of(reference))
        self._samples[sample] = replace(found, **row)
        write_samples(self._samples, "snakemake", "")

    def command(self, stage: str) -> list[str]:
        """Return the words of a job, as the workflow gives them."""
        words = [stage, "--model", MODEL, f"--batch={BATCH}"]
        words += ["--network", str(self.weights)] if stage in WITH_NETWORK else []
        words += ["--threads", str(self.threads), "--memory-mb", str(self.memory_mb)]
        return [*words, "--config", stage_config(self.settings, stage, MODEL)]

    def run(self, *stages: str) -> dict[str, Entry]:
        """Run stages in this process, each to its good end; return the entries of the last one by sample."""
        for stage in stages:
            assert main(self.command(stage)) == 0
        return self.entries(stages[-1])

    def measure(self, stage: str, *, before: Callable[[], object] | None = None) -> tuple[float, int]:
        """Run a stage in a process of its own; return its wall time in s and peak memory in bytes."""
        measured = run_stage(self.command(stage), before=before)
        failures = [entry.failure for entry in self.entries(stage).values() if entry.failure]
        assert not failures, failures
        return measured

    def forget(self, stage: str) -> None:
        """Remove what a stage recorded and made, so that its next job does everything again."""
        for entry in self.entries(stage).values():
            for file in entry.files:
                Path(file).unlink()
        ledger_path(stage, MODEL, BATCH).unlink(missing_ok=True)

    def record(self, stage: str, **found: object) -> None:
        """Write the ledger of a stage, as if it had made a new result of every sample."""
        with write_ledger(ledger_path(stage, MODEL, BATCH), stage=stage, model=MODEL, batch=BATCH) as writer:
            for sample in self._samples:
                writer.record(sample, Entry(fingerprint=f"{stage} {next(self._numbers)}", found=found))

    def put_mask(
        self, sample: str, images: dict[str, np.ndarray], pixel_size_um: tuple[float, float] | None = None
    ) -> None:
        """Write the mask of a sample, as if it had been made just now."""
        self.mask(sample).parent.mkdir(parents=True, exist_ok=True)
        write_label_images(self.mask(sample), images, pixel_size_um=pixel_size_um, annotations={"sample": sample})
        self.record("stitch", mask_sha256=sha256(self.mask(sample)))

    def entries(self, stage: str) -> dict[str, Entry]:
        """Return what the last job of a stage recorded."""
        return read_ledger(ledger_path(stage, MODEL, BATCH))

    def path(self, pattern: str, sample: str) -> Path:
        """Return the path of a file of a sample, such as ``paths.MASK``."""
        return Path(pattern.format(model=MODEL, sample=sample))

    def mask(self, sample: str) -> Path:
        """Return the path of the mask of a sample."""
        return self.path(paths.MASK, sample)


def failure_of_network(stage: str, model: str) -> Failure:
    """Return why the job of a network in the current folder failed."""
    failure = read_ledger(network_ledger_path(stage, model))[model].failure
    assert failure is not None
    return failure
