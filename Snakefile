# Slidemill: drop slides into a folder, run `snakemake --cores N`, review results/metrics.csv and results/report.html.
import sys
from pathlib import Path

from snakemake.utils import min_version

from pipeline.base.errors import SlidemillError
from pipeline.settings.yaml_file import read_yaml

min_version("9.8")

try:
    if Path("config/config.yaml").is_file() or not workflow.configfiles:
        read_yaml(Path("config/config.yaml"))  # Snakemake would unfold whatever it holds
except SlidemillError as error:
    sys.exit(f"error: {error}")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/jobs.smk"
include: "workflow/rules/verify.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        rules.report.output,
        rules.finish.output,


rule train:
    """Train and validate all networks, and renew the report; slides are left to the next run."""
    input:
        rules.report.output,
        rules.finish.output,


onstart:
    begin_run()


onsuccess:
    end_run(is_complete=True)


onerror:
    end_run(is_complete=False)
