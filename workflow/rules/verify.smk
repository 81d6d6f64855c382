# Proof on request that tiles give what one pass gives: `snakemake verification`, or the file of one sample.


rule verification:
    """Verify every model on every slide."""
    input:
        proofs_of_all,


rule verify:
    """Compare tiles with one pass over the whole, on a piece of one slide."""
    input:
        network=network_of,
        card=card_of,
        plan="results/plans/{model}/{sample}.json",
        slide=slide_of,
    output:
        proof="results/verification/{model}/{sample}.json",
    log:
        "logs/verify/{model}/{sample}.log",
    benchmark:
        "benchmarks/verify/{model}/{sample}.tsv"
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        decode_mb=budget_mb,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        config=config_of("verify"),
    shell:
        "python -m pipeline verify --weights {input.network:q} --plan {input.plan:q} --output {output.proof:q}"
        " --threads {threads} --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"
