# One table and one page for all samples. When samples fail, `onerror` in the Snakefile writes both.


rule report:
    """Gather every sample into results/metrics.csv, rank the models, and make the page."""
    input:
        results_of_all,
    output:
        table=report(
            "results/metrics.csv",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"content": "all samples"},
        ),
        comparison=report(
            "results/comparison.csv",
            caption="../report/comparison.rst",
            category="Metrics",
            labels={"content": "all models"},
        ),
        page=report(
            "results/report.html",
            caption="../report/report.rst",
            category="Review",
            labels={"content": "overlays"},
        ),
        provenance="results/provenance.json",
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/report.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        names=sorted(slides),
        references=sorted(references),
        config=config_of("report"),
    shell:
        "python -m pipeline report --output {output.table:q} --comparison {output.comparison:q} --page {output.page:q}"
        " --provenance {output.provenance:q} --config {params.config:q}"
        " > {log:q} 2>&1"
