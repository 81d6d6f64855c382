# Slidemill: drop slides into a folder, run `snakemake --cores N`, review results/metrics.csv and results/report.html.
from snakemake.utils import min_version

min_version("9.8")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/verify.smk"
include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        rules.report.output,


onstart:
    begin_run()


onsuccess:
    end_run(is_complete=True)


onerror:
    end_run(is_complete=False)
