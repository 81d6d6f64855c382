# Tables, figures and one page for all samples. When samples fail, `onerror` in the Snakefile writes both.


rule report:
    """Gather every sample into results/metrics.csv, compare the models, and make the page."""
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
        cohort=report(
            "results/cohort.csv",
            caption="../report/cohort.rst",
            category="Metrics",
            labels={"content": "cohort"},
        ),
        paired=report(
            "results/paired.csv",
            caption="../report/paired.rst",
            category="Metrics",
            labels={"content": "models in pairs"},
        ),
        folds=report(
            "results/folds.csv",
            caption="../report/folds.rst",
            category="Metrics",
            labels={"content": "cross-validation"},
        ),
        learning=report(
            "results/figures/learning.svg",
            caption="../report/learning.rst",
            category="Figures",
            labels={"content": "learning curves"},
        ),
        dice=report(
            "results/figures/dice.svg",
            caption="../report/dice.rst",
            category="Figures",
            labels={"content": "Dice by class"},
        ),
        models=report(
            "results/figures/models.svg",
            caption="../report/models.rst",
            category="Figures",
            labels={"content": "models with intervals"},
        ),
        confusion=report(
            "results/figures/confusion.svg",
            caption="../report/confusion.rst",
            category="Figures",
            labels={"content": "confusion"},
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
        runtime=time_to_report,
    params:
        names=sorted(slides),
        references=sorted(references),
        waiting=waiting,
        refused=refused,
        groups=groups,
        drawings=lambda wildcards, output: str(Path(output.learning).parent),
        config=config_of("report"),
    shell:
        "python -m pipeline report --output {output.table:q} --comparison {output.comparison:q} --cohort {output.cohort:q}"
        " --paired {output.paired:q} --folds {output.folds:q} --drawings {params.drawings:q} --page {output.page:q}"
        " --provenance {output.provenance:q} --config {params.config:q} > {log:q} 2>&1"
