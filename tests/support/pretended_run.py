"""Runs of a project of which all jobs are pretended: files and ledgers are written, nothing is computed."""

import os
from pathlib import Path

from pipeline.base import paths
from pipeline.project.jobs.expected import STAGES, Expected
from pipeline.project.jobs.fingerprints import fingerprint, recipe
from pipeline.project.jobs.ledger import Entry, write_ledger
from pipeline.project.jobs.network_job import inputs_of_combine, inputs_of_train, inputs_of_validate, inputs_of_weigh
from pipeline.project.jobs.run import Run
from pipeline.project.jobs.todo import FILES
from pipeline.project.stage_settings import network_file, stage_config, start_of
from pipeline.settings.schema import parse_settings
from tests.support.slide_files import touch

SETTINGS = {
    "settle_s": 0,
    "models": {
        "folded": {"folds": 2},
        "given": {"checkpoint": "network/model.safetensors"},
        "next": {"pretrained": "folded"} | {"folds": 2},
    },
    "ensembles": {"both": {"members": ["folded", "given"]}},
}
NET = {"models": {"net": {"max_steps": 60}}, "ensembles": {}}


def lay_out(folder):
    """A plate of two, one with a reference, and a slide alone; training images; all networks."""
    touch(folder / "data", "slides/plate/a.tif", "slides/plate/b.tif", "slides/c.tif", "references/plate/a.tif")
    touch(folder / "data" / "training", *(f"{part}/{name}.tif" for part in ("images", "labels") for name in "1234"))
    touch(folder, "network/model.safetensors", "network/model.json")
    (folder / "network/model.safetensors").write_bytes(b"given")


def look(**settings):
    return Run.find(parse_settings(SETTINGS | settings, source=""), is_main=True, on_cluster=False, waits=False)


def todo(**settings):
    """The stages to do, by model and batch."""
    found = {}
    for job in look(**settings).todo.jobs:
        found.setdefault((job.model, job.batch), set()).add(job.stage)
    return found


def do(**settings):
    """Do all jobs, as a run without Snakemake: networks first."""
    run = look(**settings)
    run.begin("snakemake")
    order = ["weigh", "train", "validate", "combine", *STAGES]
    for job in sorted(run.todo.jobs, key=lambda job: (order.index(job.stage), job.model == "both", job.model)):
        if not job.batch:
            do_network_job(run, job)
    expected = Expected(run.settings)
    for job in run.todo.jobs:
        if job.batch:
            do_batch_job(run, job, expected)
    run.end(has_lost_jobs=False)


def do_network_job(run, job):
    files = {
        "train": [paths.NETWORK, paths.CARD, paths.HISTORY],
        "combine": [paths.NETWORK, paths.CARD],
        "validate": [paths.VALIDATION],
    }
    made = [Path(pattern.format(model=job.model)) for pattern in files.get(job.stage, [])]
    for path in made:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{job} {run.config(job.stage, job.model)}")
    training = run.training
    held_back = training.held_back.get(job.model, [])
    inputs = {
        "weigh": lambda: inputs_of_weigh(training.pairs),
        "train": lambda: inputs_of_train(training.pairs, held_back, start=start_of(run.settings, job.model)),
        "validate": lambda: inputs_of_validate(held_back, Path(network_file(run.settings, job.model))),
        "combine": lambda: inputs_of_combine([Path(member) for member in run.members(job.model)], []),
    }[job.stage]()
    config = stage_config(run.settings, job.stage, job.model)
    wanted, by = fingerprint(job.stage, config, inputs), recipe(job.stage, config)
    with write_ledger(Path(job.ledger), stage=job.stage, model=job.model, recipe=by) as writer:
        writer.record(job.model, Entry(fingerprint=wanted, inputs=inputs, files=[str(path) for path in made]))


def do_batch_job(run, job, expected):
    by = recipe(job.stage, expected.config(job.stage, job.model))
    with write_ledger(Path(job.ledger), stage=job.stage, model=job.model, batch=job.batch, recipe=by) as writer:
        for name in run.batches[job.batch]:
            wanted = expected.of(job.model, run.samples[name]).get(job.stage)
            if wanted:
                patterns = FILES[job.stage] or (paths.PREDICTION,)
                made = [pattern.format(model=job.model, sample=name) for pattern in patterns]
                touch(Path(), *made)
                found = dict.fromkeys(expected.kept(job.model), True)
                inputs = expected.inputs(job.model, run.samples[name])[job.stage]
                writer.record(name, Entry(fingerprint=wanted, inputs=inputs, files=made, found=found))


def replace(path, time_s):
    """Replace a file by one with another content, and an older or later time."""
    Path(path).write_bytes(Path(path).read_bytes() + b"x")
    os.utime(path, (time_s, time_s))
