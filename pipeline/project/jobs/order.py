"""Which jobs there are, and which others each of them needs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.base import paths
from pipeline.project.jobs.fingerprints import BEFORE
from pipeline.project.stage_settings import training_of_start
from pipeline.settings.schema import Settings


class Job(NamedTuple):
    """A job: a stage, of a network (then ``batch`` is empty) or of a network and a batch."""

    stage: str
    model: str
    batch: str = ""

    @property
    def ledger(self) -> str:
        """The path of its ledger."""
        return (paths.LEDGER if self.batch else paths.NETWORK_LEDGER).format(**self._asdict())


def makers(settings: Settings, network: str) -> list[Job]:
    """Return the job that makes a network; none if a user brought it."""
    if network in settings.averages:
        return [Job("combine", network)]
    return [Job("train", network)] if network in settings.trainings else []


def jobs_before(settings: Settings, job: Job) -> list[Job]:
    """Return the jobs whose results a job needs: those before it on its batch, and that of its network."""
    stage, model, batch = job
    if stage == "weigh":
        return []
    if stage == "train":
        start = training_of_start(settings, model)
        name, _ = settings.trainings[model]
        return [*(makers(settings, start) if start else []), Job("weigh", name)]
    if stage == "combine":
        return [maker for member in settings.averages[model].members for maker in makers(settings, member)]
    jobs = makers(settings, model)
    while stage in BEFORE:
        stage = BEFORE[stage]
        jobs.append(Job(stage, model, batch))
    return jobs


def with_all_before(settings: Settings, jobs: Iterable[Job]) -> list[Job]:
    """Return jobs of networks and all that they need, each once, after those that it needs."""
    found: dict[Job, None] = {}
    for job in jobs:
        found |= dict.fromkeys([*with_all_before(settings, jobs_before(settings, job)), job])
    return list(found)


def network_jobs(settings: Settings) -> list[Job]:
    """Return all jobs that make or validate networks, each after those that it needs."""
    folds = [Job("validate", name) for name, (_, fold) in settings.trainings.items() if fold]
    made = [job for name in [*settings.trainings, *settings.averages] for job in makers(settings, name)]
    return with_all_before(settings, [*made, *folds])
