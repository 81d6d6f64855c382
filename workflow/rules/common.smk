# What the rules ask about the project: which samples, which files, which part of the configuration.
import atexit
import gc
import inspect
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from pipeline.settings.schema import parse_settings
from pipeline.project.drop_folder import SLIDES, refuse_for_cluster, samples_of_run, take_stock, write_samples
from pipeline.project.stage_settings import network_file, split_of, stage_config, start_of
from pipeline.base.errors import SlidemillError
from pipeline.base.files import sweep, why_not_written
from pipeline.project.image_files import SUFFIXES
from pipeline.project.training_pairs import find_pairs
from pipeline.project.sample_ids import has_probabilities
from pipeline.project.run_lock import enter_project
from pipeline.project.sample_sheet import NOTHING, read_groups, read_strangers
from pipeline.project.splits import group_pairs, split_pairs
from pipeline.report.summary import last_lines

# The jobs of many samples are one large graph that lives to the end. Looking through it for garbage each time that a few
# hundred objects were made, and taking it apart when the process ends, takes a fifth of the time of a dry run.
gc.set_threshold(100_000, 50, 100)
atexit.register(gc.freeze)

# All executors but the local one need --jobs. A job of theirs is a Snakemake of its own.
on_cluster = workflow.resource_settings.nodes is not None or workflow.remote_exec

try:
    was_killed = workflow.is_main_process and enter_project()
    settings = parse_settings(config, source=", ".join(map(str, workflow.configfiles)) or "--config")
    # A job of a cluster parses this again: it goes by what its run found when it began.
    samples = take_stock(settings) if workflow.is_main_process else samples_of_run(settings)
    if on_cluster:
        samples = refuse_for_cluster(samples)
    if not samples:
        raise SlidemillError(
            f"no slides in {settings.slides} (suffixes: {', '.join(SUFFIXES)}); drop some, or set `slides`"
        )
    groups = read_groups(Path(settings.samples), samples) if workflow.is_main_process else {}
    strangers = read_strangers(Path(settings.samples), samples) if workflow.is_main_process else []
    trained = list(settings.trainings)
    pairs = find_pairs(Path(settings.training.images), Path(settings.training.labels)) if trained else []
    training_groups = group_pairs(pairs, Path(settings.training.samples)) if trained else {}
    held_back = {name: split_pairs(training_groups, split_of(settings, name))[1] for name in trained}
except SlidemillError as error:
    raise WorkflowError(str(error))

ready = {name: sample for name, sample in samples.items() if sample.is_ready}
slides = {name: sample.slide for name, sample in ready.items()}
references = {name: sample.reference for name, sample in ready.items() if sample.reference}
waiting = sorted(name for name, sample in samples.items() if sample.waits)
refused = sorted(sample.refused for sample in samples.values() if sample.refused)
if workflow.is_main_process:
    if was_killed:
        logger.warning("the last run was killed; its lock is removed")
    for reason in [*(samples[name].waits for name in waiting[:3]), *refused[:3]]:
        logger.warning(f"left alone: {reason}")
    if strangers:
        more = f" and {len(strangers) - 1} more" if len(strangers) > 1 else ""
        logger.warning(f"{settings.samples}: no slide {strangers[0][1]!r}{more}: deleted, or misspelt")

batches = {}
for name, sample in ready.items():
    batches.setdefault(sample.batch, []).append(name)


# A conda environment of a rule has the libraries, but not this project.
shell.prefix(f"export PYTHONPATH={shlex.quote(str(workflow.basedir))}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; ")


wildcard_constraints:
    model="[^/]+",


def asked(function):
    """Keep the signature of a function at hand: Snakemake looks at it three times for each job, and builds it anew."""
    function.__signature__ = inspect.signature(function)
    return function


@asked
def slide_of(wildcards):
    return slides[wildcards.sample]


@asked
def version_of(wildcards):
    """Size and time of a slide: one that replaces it may be older than its results, which Snakemake would not see."""
    return samples[wildcards.sample].version


@asked
def reference_of(wildcards):
    return references[wildcards.sample]


def plans_of(wildcards):
    return [f"results/plans/{wildcards.model}/{sample}.json" for sample in batches[wildcards.batch]]


@asked
def prediction_of(wildcards):
    return f"results/predictions/{wildcards.model}/{samples[wildcards.sample].batch}.zarr.zip"


@asked
def probabilities_of(wildcards):
    return prediction_of(wildcards) if settings.prediction.probabilities else []


def flag_with(name, path):
    """Return a flag of a command and its value; nothing where there is none."""
    return f"{name} {shlex.quote(path)}" if path else ""


@asked
def network_of(wildcards):
    return network_file(settings, wildcards.model)


def start_file(wildcards):
    start = start_of(settings, wildcards.model)
    return start if start and start != "imagenet" else []


def members_of(wildcards):
    return [network_file(settings, member) for member in settings.averages[wildcards.model].members]


def group_of_training_images(wildcards):
    return {pair.name: name for name, members in training_groups.items() for pair in members}


def any_of(names):
    return "|".join(map(re.escape, names)) or "(?!)"


@cache
def card_beside(network):
    return str(Path(network).with_name("model.json"))


@asked
def card_of(wildcards):
    return card_beside(network_of(wildcards))


def training_images(wildcards):
    return settings.training.images


def training_labels(wildcards):
    return settings.training.labels


def model_of(wildcards):
    """Return the model that a training is of: a fold learns from the weight maps of its model."""
    model, _ = settings.trainings.get(wildcards.model, (wildcards.model, None))
    return model


def weights_folder(wildcards):
    return f"results/weights/{model_of(wildcards)}"


def weight_maps(wildcards):
    return [f"{weights_folder(wildcards)}/{pair.name}.tif" for pair in pairs]


def names_held_back(wildcards):
    return [pair.name for pair in held_back[wildcards.model]]


def plans_folder(wildcards):
    return f"results/plans/{wildcards.model}"


@cache
def config_text(stage, model, stated, probabilities):
    """Return the configuration of a stage; many thousand jobs share a few."""
    return stage_config(settings, stage, model, stated=stated, probabilities=probabilities)


def config_of(stage):
    @asked
    def config(wildcards):
        sample, batch = wildcards.get("sample"), wildcards.get("batch")
        stated = samples[sample].stated if sample else NOTHING
        return config_text(stage, wildcards.get("model"), stated, has_probabilities(batch) if batch else None)

    return config


def objects_of_all(wildcards):
    return [f"results/objects/{model}/{sample}.csv" for model in settings.networks for sample in slides]


def proofs_of_all(wildcards):
    return [f"results/verification/{model}/{sample}.json" for model in settings.networks for sample in slides]


def results_of_all(wildcards):
    for sample in slides:
        yield f"results/appearance/{sample}.json"
    for name, (_, fold) in settings.trainings.items():
        # Not only the network: after a change of `folds` to null, that of `combine` is there under the same name.
        yield f"results/models/{name}/history.csv"
        if fold:
            yield f"results/validation/{name}.csv"
    for model in settings.networks:
        for batch in batches:
            yield f"results/predictions/{model}/{batch}.json"
        for sample in slides:
            yield f"results/masks/{model}/{sample}.ome.tiff"
            yield f"results/objects/{model}/{sample}.csv"
            if sample in references:
                yield f"results/metrics/{model}/{sample}.csv"


def begin_run():
    """Write down what this run found, for its jobs and its report; clear what killed ones left behind."""
    predictions = (f"results/predictions/{model}/{batch}.zarr.zip" for model in settings.networks for batch in batches)
    sweep(Path("results"), kept=set(map(Path, predictions)))
    try:
        write_samples(samples, shlex.join(["snakemake", *sys.argv[1:]]))
    except SlidemillError as error:
        raise WorkflowError(str(error))
    say_budget()


def is_slice():
    """Return whether this run was told to take a part of the samples."""
    return workflow.dag_settings.batch is not None


def end_run():
    """Say what became of the samples, if this run made the report."""
    table, page = Path("results/metrics.csv"), Path("results/report.html")
    if table.exists() and table.stat().st_mtime >= Path("results/slides.json").stat().st_mtime:
        print(f"\n{last_lines(table, page)}", file=sys.stderr)


def report_what_there_is():
    """Write the report although samples failed or are left; without provenance.json the next run writes it anew."""
    Path("results/provenance.json").unlink(missing_ok=True)
    # From the folder of the workflow, as the jobs: what is installed may be another version.
    found_first = os.pathsep.join([str(workflow.basedir), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    command = ["python", "-m", "pipeline", "report", "--output", "results/metrics.csv"]
    command += ["--comparison", "results/comparison.csv", "--cohort", "results/cohort.csv"]
    command += ["--paired", "results/paired.csv", "--folds", "results/folds.csv"]
    command += ["--drawings", "results/figures", "--page", "results/report.html"]
    log = Path("logs/report.log")
    try:
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as written:
            done = subprocess.run(
                [*command, "--config", stage_config(settings, "report")],
                env=os.environ | {"PYTHONPATH": found_first},
                stderr=written,
                check=False,
            )
    except OSError as error:
        print(f"\n{log}: cannot be written: {why_not_written(log, error)}", file=sys.stderr)
        return
    if done.returncode == 0:
        end_run()
    else:
        reason = log.read_text(errors="replace").strip().rpartition("\n")[2]
        print(f"\nthe report could not be written either ({log}): {reason}", file=sys.stderr)
