"""A job that makes a network, or what its training needs: it has a ledger too, with one entry.

It ends well also if it failed for a reason that concerns this network alone; then the samples that need the network say
why. What follows such a failure is not done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.base import paths
from pipeline.base.errors import SlidemillError, StorageError, failure_of
from pipeline.base.files import sha256, state_of
from pipeline.project.drop.image_files import parts_of
from pipeline.project.jobs.batch_job import Made
from pipeline.project.jobs.fingerprints import Inputs, fingerprint, recipe
from pipeline.project.jobs.ledger import MAKERS, Entry, has_failed, network_ledger_path, write_ledger
from pipeline.project.training_pairs import TrainingPair
from pipeline.settings.section import Section

log = logging.getLogger(__name__)

HELD_BACK = "held back"


def make_network(
    stage: str,
    model: str,
    config: Section,
    make: Callable[[], Made],
    *,
    made_from: Callable[[], Inputs],
    after: Sequence[tuple[str, str]] = (),
) -> None:
    """Run ``make`` and write the ledger of the job.

    Parameters
    ----------
    stage, model : str
        ``weigh``, ``train``, ``validate`` or ``combine``; the model, fold or ensemble.
    config : Section
        Settings of the stage.
    make : callable
        Does the work, and returns the files it made.
    made_from : callable
        Returns the inputs, as :func:`inputs_of_train` does.
    after : sequence of (stage, model)
        Jobs before this one. If one of them failed, nothing is done, and the ledger has no entry.
    """
    for other in set(MAKERS) - {stage} if stage in MAKERS else ():
        network_ledger_path(other, model).unlink(
            missing_ok=True
        )  # of the time when the network was made in another way
    settings = config.model_dump_json()
    ledger = network_ledger_path(stage, model)
    with write_ledger(ledger, stage=stage, model=model, recipe=recipe(stage, settings)) as writer:
        for before in after:
            if has_failed(*before):
                log.warning("nothing to do: the stage %s of %s failed", *before)
                return
        start = time.monotonic()
        entry = Entry(fingerprint="")
        try:
            inputs = made_from()
            entry = Entry(fingerprint=fingerprint(stage, settings, inputs), inputs=inputs)
            made = make()
            files, seconds = [str(path) for path in made.files], round(time.monotonic() - start, 3)
            writer.record(model, replace(entry, files=files, found=made.found, seconds=seconds))
        except StorageError:
            raise
        except Exception as error:  # of this network; others go on
            failure = failure_of(stage, error, paths.LOG[stage].format(model=model))
            log.error("error: %s: %s", failure.stage, failure.message, exc_info=_bug(error))
            writer.record(model, replace(entry, failure=failure))


def state_of_pairs(pairs: Sequence[TrainingPair]) -> Inputs:
    """Return sizes and times of images and labels by their paths."""
    images = {f"image {pair.image}": state_of(pair.image, *parts_of(pair.image)) for pair in pairs}
    return images | {f"label {pair.labels}": state_of(pair.labels, *parts_of(pair.labels)) for pair in pairs}


def inputs_of_weigh(pairs: Sequence[TrainingPair]) -> Inputs:
    """Return what weight maps are made from."""
    return state_of_pairs(pairs)


def inputs_of_train(pairs: Sequence[TrainingPair], held_back: Sequence[TrainingPair], *, start: str | None) -> Inputs:
    """Return what a training is made from: images (and so weight maps), split, and the network it starts from."""
    names = {HELD_BACK: ", ".join(pair.name for pair in held_back)}
    return state_of_pairs(pairs) | names | inputs_of_networks([Path(start)] if start else [])


def inputs_of_networks(networks: Sequence[Path]) -> Inputs:
    """Return the SHA-256 of network files by their paths."""
    return {f"network {path}": sha256(path) if path.is_file() else "" for path in networks}


def inputs_of_combine(networks: Sequence[Path], held_back: Sequence[TrainingPair]) -> Inputs:
    """Return what an ensemble is made from: networks, and the images that it is compared on."""
    return state_of_pairs(held_back) | inputs_of_networks(networks)


def inputs_of_validate(held_back: Sequence[TrainingPair], network: Path) -> Inputs:
    """Return what the metrics of a fold are made from."""
    return state_of_pairs(held_back) | inputs_of_networks([network])


def _bug(error: Exception) -> Exception | None:
    return None if isinstance(error, SlidemillError) else error
