# Tables, figures and one page for all samples, also those that failed; then the run fails if one did.


rule report:
    """Gather every sample into results/metrics.csv, compare the models, and make the page."""
    input:
        before_report,
    output:
        in_report(paths.METRICS_TABLE, "Metrics", "all samples"),
        paths.ALL_METRICS,
        paths.COLUMNS,
        in_report(paths.SUMMARY, "Metrics", "classes of each slide"),
        paths.ALL_OBJECTS,
        paths.ALL_REGIONS,
        in_report(paths.COMPARISON, "Metrics", "all models"),
        in_report(paths.COHORT, "Metrics", "cohort"),
        in_report(paths.PAIRED, "Metrics", "models in pairs"),
        in_report(paths.FOLDS, "Metrics", "cross-validation"),
        in_report(paths.FIGURE.format(figure="learning"), "Figures", "learning curves"),
        in_report(paths.FIGURE.format(figure="dice"), "Figures", "Dice by class"),
        in_report(paths.FIGURE.format(figure="models"), "Figures", "models with intervals"),
        in_report(paths.FIGURE.format(figure="confusion"), "Figures", "confusion"),
        in_report(paths.PAGE, "Review", "overlays"),
        paths.PROVENANCE,
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
        folder=lambda wildcards, output: str(Path(output[0]).parent),
        config=config_of("report"),
    shell:
        "python -m pipeline report --output {params.folder:q} --config {params.config:q} > {log:q} 2>&1"


localrules:
    finish,


rule finish:
    """Say how many samples are done, failed and waiting; fail if one, or a network, failed."""
    input:
        rules.report.output,
    output:
        paths.FINISHED,
    log:
        paths.LOG["finish"],
    retries: 0
    conda:
        "../../environment.yml"
    params:
        folder=lambda wildcards, output: str(Path(output[0]).parent),
        config=config_of("report"),
    shell:
        "python -m pipeline finish --folder {params.folder:q} --output {output:q} --config {params.config:q} > {log:q} 2>&1"
