# The run, and what the rules ask it for by wildcards.
import atexit
import gc
import inspect
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.project.run import Run, print_summary, write_report_after_failure
from pipeline.settings.schema import parse_settings

# The jobs of many samples are one large graph that is used until the end. Garbage collection every few hundred objects,
# and freeing the graph when the process ends, takes a fifth of the time of a dry run.
gc.set_threshold(100_000, 50, 100)
atexit.register(gc.freeze)

# All executors but the local one need --jobs. A job of theirs is a Snakemake process of its own.
on_cluster = workflow.resource_settings.nodes is not None or workflow.remote_exec

try:
    settings = parse_settings(config, source=", ".join(map(str, workflow.configfiles)) or "--config")
    this_run = Run.find(settings, is_main=workflow.is_main_process, on_cluster=on_cluster)
except SlidemillError as error:
    raise WorkflowError(str(error))
for warning in this_run.warnings if workflow.is_main_process else ():
    logger.warning(warning)


# A conda environment of a rule has the libraries, but not this project.
shell.prefix(f"export PYTHONPATH={shlex.quote(str(workflow.basedir))}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; ")


wildcard_constraints:
    model="[^/]+",


def cache_signature(function):
    """Store the signature of a function in it; Snakemake would compute it three times for each job."""
    function.__signature__ = inspect.signature(function)
    return function


@cache
def card_beside(network):
    return str(Path(network).with_name("model.json"))


def any_of(names):
    return "|".join(map(re.escape, names)) or "(?!)"


def flag_with(name, path):
    """Return a flag and its value; nothing without a value."""
    return f"{name} {shlex.quote(path)}" if path else ""


def of_job(wildcards):
    return {name: wildcards.get(name) for name in ("model", "sample", "batch")}


def config_of(stage):
    return cache_signature(lambda wildcards: this_run.config(stage, **of_job(wildcards)))


def in_report(path, category, content):
    """Put a file into the report of Snakemake, under the caption of the same name."""
    caption = f"../report/{Path(path).stem}.rst"
    return report(path, caption=caption, category=category, labels={"content": content})


slide_of = cache_signature(lambda wildcards: this_run.slides[wildcards.sample])
# Size and time: a slide that replaces another may be older than its results, which Snakemake would not notice
version_of = cache_signature(lambda wildcards: this_run.samples[wildcards.sample].version)
network_of = cache_signature(lambda wildcards: this_run.network(wildcards.model))
card_of = cache_signature(lambda wildcards: card_beside(this_run.network(wildcards.model)))
prediction_of = cache_signature(
    lambda wildcards: paths.PREDICTION.format(model=wildcards.model, batch=this_run.samples[wildcards.sample].batch)
)
probabilities_of = cache_signature(
    lambda wildcards: prediction_of(wildcards) if settings.prediction.probabilities else []
)


def begin_run():
    try:
        this_run.begin(shlex.join(["snakemake", *sys.argv[1:]]))
    except SlidemillError as error:
        raise WorkflowError(str(error))
    if low_memory and not on_cluster:
        logger.warning(low_memory)


def end_run(is_complete):
    """Print the summary; first write the report if samples failed, or this run had only a part of them (--batch)."""
    if is_complete and workflow.dag_settings.batch is None:
        print_summary()
    else:
        write_report_after_failure(settings, Path(workflow.basedir))
