# Tables, figures and one page for all samples. If samples fail, `onerror` in the Snakefile writes them all the same.


rule report:
    """Gather every sample into results/metrics.csv, compare the models, and make the page."""
    input:
        lambda wildcards: this_run.targets(),
    output:
        in_report(paths.ALL_METRICS, "Metrics", "all samples"),
        in_report(paths.COMPARISON, "Metrics", "all models"),
        in_report(paths.COHORT, "Metrics", "cohort"),
        in_report(paths.PAIRED, "Metrics", "models in pairs"),
        in_report(paths.FOLDS, "Metrics", "cross-validation"),
        in_report(paths.FIGURE.format(figure="learning"), "Figures", "learning curves"),
        in_report(paths.FIGURE.format(figure="dice"), "Figures", "Dice by class"),
        in_report(paths.FIGURE.format(figure="models"), "Figures", "models with intervals"),
        in_report(paths.FIGURE.format(figure="confusion"), "Figures", "confusion"),
        in_report(paths.PAGE, "Review", "overlays"),
        provenance=paths.PROVENANCE,
    log:
        paths.LOG["report"],
    benchmark:
        paths.BENCHMARK["report"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=time_to_report,
    params:
        names=sorted(this_run.slides),
        references=sorted(this_run.references),
        waiting=this_run.waiting,
        refused=this_run.refused,
        groups=this_run.groups,
        folder=lambda wildcards, output: str(Path(output.provenance).parent),
        config=config_of("report"),
    shell:
        "python -m pipeline report --output {params.folder:q} --provenance {output.provenance:q}"
        " --config {params.config:q} > {log:q} 2>&1"
