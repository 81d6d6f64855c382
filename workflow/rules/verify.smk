# On request: check that tiles equal one pass (`snakemake verification`, or the file of one sample).


rule verification:
    """Verify every model on every slide."""
    input:
        lambda wildcards: this_run.per_slide(paths.VERIFICATION),


rule verify:
    """Compare tiles with one pass over the whole, on a piece of one slide."""
    input:
        lambda wildcards: this_run.before("verify", **wildcards),
    output:
        verification=paths.VERIFICATION,
    log:
        paths.LOG["verify"],
    benchmark:
        paths.BENCHMARK["verify"]
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        decode_mb=budget_for("verify"),
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        network=lambda wildcards: this_run.network(wildcards.model),
        plan=paths.PLAN,
        made_from=lambda wildcards: this_run.made_from(wildcards.model, wildcards.sample),
        config=config_of("verify"),
    shell:
        "python -m pipeline verify --network {params.network:q} --plan {params.plan:q}"
        " --output {output.verification:q} --threads {threads} --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"
