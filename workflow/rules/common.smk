# The run, and what the rules ask it for by wildcards.
import os
import re
import shlex
import sys
from pathlib import Path

from snakemake.cli import get_argument_parser
from snakemake.logging import logger

from pipeline.base import paths
from pipeline.base.errors import SlidemillError
from pipeline.project.console import Console
from pipeline.project.jobs.announced import announced
from pipeline.project.jobs.expected import STAGES
from pipeline.project.jobs.order import network_jobs
from pipeline.project.jobs.run import Run, python_path, write_missing_report
from pipeline.project.summary import print_last_lines, print_verifications
from pipeline.settings.schema import parse_settings

# All executors but the local one need --jobs. A job of theirs is a Snakemake process of its own.
on_cluster = workflow.resource_settings.nodes is not None or workflow.remote_exec


def is_only_training():
    """Return whether the target is `train`; Snakemake says which targets there are only when all rules are read."""
    if "train" not in sys.argv:
        return False
    given, _ = get_argument_parser().parse_known_args(sys.argv[1:])
    return {*given.targets, *(given.until or ())} == {"train"}


try:
    settings = parse_settings(config, source=", ".join(map(str, workflow.configfiles)) or "--config")
    this_run = Run.find(
        settings,
        is_main=workflow.is_main_process,
        on_cluster=on_cluster,
        waits=not workflow.output_settings.dryrun,
        only_training=is_only_training(),
    )
    this_run.check_networks(Path(workflow.basedir))
except SlidemillError as error:
    sys.exit(f"error: {error}")
for warning in this_run.warnings if workflow.is_main_process else ():
    logger.warning(warning)


# What a user needs is said in place of Snakemake's messages, which are in its log; --verbose and --quiet keep them.
said = workflow.output_settings
own = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
console = None
if workflow.is_main_process and own and not (said.dryrun or said.verbose or said.quiet):
    console = Console(this_run)
    logger.removeHandler(own[0])
    logger.addHandler(console)
elif workflow.is_main_process:
    for line in announced(this_run):
        logger.info(line)

# `python -m` would look for modules in the project folder first, where a user may have a `torch.py`.
os.environ |= {"PYTHONSAFEPATH": "1", "PYTHONPATH": python_path()}
# A conda environment of a rule has the libraries, but not this project. Snakemake formats the text.
code = shlex.quote(str(workflow.basedir)).replace("{", "{{").replace("}", "}}")
shell.prefix(f"export PYTHONSAFEPATH=1 PYTHONPATH={code}${{{{PYTHONPATH:+:$PYTHONPATH}}}}; ")


wildcard_constraints:
    model="[^/]+",


def any_of(names):
    return "|".join(map(re.escape, names)) or "(?!)"


def networks_of(stage):
    """Return the networks that a stage works with; of one that makes networks, the models, folds or averages."""
    return settings.networks if stage in STAGES else [job.model for job in network_jobs(settings) if job.stage == stage]


def rule_of(stage):
    return "train_network" if stage == "train" else stage  # `train` is the target of all trainings


def ledger_of(stage):
    return (paths.LEDGER if stage in STAGES else paths.NETWORK_LEDGER).replace("{stage}", stage)


def run_always(stage):
    """Run the jobs of a stage whatever the times of their files: only those that have something to do are planned."""
    workflow.dag.forcerules.add(workflow.get_rule(rule_of(stage)))


def before(stage):
    """Return a function that returns the ledgers that a job needs, of those that this run makes."""

    def ledgers(wildcards):
        run_always(stage)
        return this_run.before(stage, **wildcards)

    return ledgers


def before_report(wildcards):
    """Return the ledgers of all jobs of this run."""
    if not this_run.is_reported:
        run_always("report")
        run_always("finish")
    return [job.ledger for job in this_run.todo.jobs]


def config_of(stage):
    return lambda wildcards: this_run.config(stage, wildcards.get("model"))


def flags_for(stage):
    """Return a function that returns what a job reads and may use, as text: braces in names are no wildcards then."""

    def flags(wildcards, threads, resources):
        if stage in STAGES:
            given = [f"--batch={shlex.quote(wildcards.batch)}"]
        else:
            given = [shlex.join(["--images", settings.training.images, "--labels", settings.training.labels])]
        if stage == "combine":
            given.append(f"--networks {shlex.join(this_run.members(wildcards.model))}")
        if stage == "train":
            maps = paths.WEIGHT_MAPS.format(model=this_run.model_of(wildcards.model))
            given.append(f"--weight-maps {shlex.quote(maps)}")
        if stage in ("tile", "predict", "stitch"):
            given.append(f"--network {shlex.quote(this_run.network(wildcards.model))}")
        if stage in ("train", "predict"):
            given.append(f"--devices {resources.gpu}")
        if stage != "weigh":
            given.append(f"--threads {threads}")
        return " ".join([*given, f"--memory-mb {resources.decode_mb}"])

    return flags


def in_report(path, category, content):
    """Put a file into the report of Snakemake, under the caption of the same name."""
    caption = f"../report/{Path(path).stem}.rst"
    return report(path, caption=caption, category=category, labels={"content": content})


def has_own_targets():
    """Return whether the user asked for certain files, of which the report may be none."""
    return bool(set(workflow.dag_settings.targets) - {"all", "train"})


def begin_run():
    try:
        command = shlex.join(["snakemake", *sys.argv[1:]])
        this_run.begin(command, renews_report=not has_own_targets())
    except SlidemillError as error:
        sys.exit(f"error: {error}")
    if low_memory and not on_cluster:
        logger.warning(low_memory)


def end_run(is_complete):
    """Remember what is done, and print how the samples are; after a killed job, first write the report without it."""
    if console:
        console.end()
    this_run.end(has_lost_jobs=not is_complete, is_stopped=bool(console and console.is_stopped))
    if has_own_targets() or write_missing_report(this_run, Path(workflow.basedir)):
        print_last_lines(settings)
    if "verification" in workflow.dag_settings.targets:
        print_verifications(this_run.per_slide(paths.VERIFICATION))
