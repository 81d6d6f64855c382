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
        "results/metrics.csv",
        "results/comparison.csv",
        "results/cohort.csv",
        "results/paired.csv",
        "results/folds.csv",
        "results/report.html",
        "results/provenance.json",


onstart:
    begin_run()


onsuccess:
    report_what_there_is() if is_slice() else end_run()


onerror:
    report_what_there_is()
