# From slides to masks, objects and metrics: every stage is a job for each batch and network. A job ends well when each
# sample of its batch has an outcome, which its ledger says; a bad slide fails alone.
for stage in STAGES:

    rule:
        name:
            stage
        input:
            before(stage),
        output:
            update(paths.LEDGER.replace("{stage}", stage)),
        log:
            paths.LOG[stage],
        benchmark:
            paths.BENCHMARK[stage]
        priority: STAGES.index(stage)  # one batch after the other: the first results come early, the time left is known
        retries: 2 if stage == "predict" else None  # a slide that crashes it is found by the next attempt
        conda:
            "../../environment.yml"
        threads: threads_for(stage)
        resources:
            mem_mb=memory_for(stage),
            decode_mb=budget_mb,
            runtime=time_for(stage),
            gpu=int(stage == "predict"),
        params:
            stage=stage,
            network=network_for(stage),
            config=config_of(stage),
        shell:
            "python -m pipeline {params.stage} --model {wildcards.model:q} --batch={wildcards.batch:q} {params.network}"
            " --threads {threads} --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"
