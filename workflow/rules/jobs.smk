# From annotated images to networks, and from slides to masks, objects and metrics. The stages of networks are a job for
# each model, fold or average; those of slides are a job for each network and batch. A job ends well when the network, or
# every sample of its batch, has an outcome, which its ledger says. By stage, the higher priority first: what waits for a
# network waits for long, and one batch after the other gives the first results early and shows how long the rest takes.
PRIORITIES = {"weigh": 100, "train": 100, "combine": 100, "validate": 0}
PRIORITIES |= {stage: number for number, stage in enumerate(STAGES)}
for stage, priority in PRIORITIES.items():

    rule:
        name:
            rule_of(stage)
        input:
            before(stage),
        output:
            update(ledger_of(stage)),
        log:
            paths.LOG[stage],
        benchmark:
            paths.BENCHMARK[stage]
        wildcard_constraints:
            model=any_of(networks_of(stage)),
        priority: priority
        retries: 2 if stage == "predict" else None  # a slide that crashes it is found by the next attempt
        conda:
            "../../environment.yml"
        threads: threads_for(stage)
        resources:
            mem_mb=memory_for(stage),
            decode_mb=budget_for(stage),
            runtime=time_for(stage),
            gpu=int(stage in ("train", "validate", "predict")),
        params:
            stage=stage,
            flags=flags_for(stage),
            config=config_of(stage),
        shell:
            "python -m pipeline {params.stage} --model {wildcards.model:q} {params.flags} --config {params.config:q}"
            " > {log:q} 2>&1"
