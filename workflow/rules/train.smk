# From annotated images to a trained network, for each entry of `models` and fold. A new slide never triggers it.


rule weigh:
    """Compute the boundary weight maps of the training labels."""
    input:
        images=[pair.image for pair in this_run.pairs],
        labels=[pair.labels for pair in this_run.pairs],
    output:
        this_run.weight_maps("{model}"),
    log:
        paths.LOG["weigh"],
    benchmark:
        paths.BENCHMARK["weigh"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        decode_mb=budget_mb,
        runtime=time_for_images("weigh"),
    params:
        images=lambda wildcards: settings.training.images,
        labels=lambda wildcards: settings.training.labels,
        weight_maps=paths.WEIGHT_MAPS,
        names=[pair.name for pair in this_run.pairs],
        config=config_of("weigh"),
    shell:
        "python -m pipeline weigh --images {params.images:q} --labels {params.labels:q} --output {params.weight_maps:q}"
        " --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"


rule train:
    """Train a network, or one of its folds; part of the images is held back."""
    input:
        images=[pair.image for pair in this_run.pairs],
        labels=[pair.labels for pair in this_run.pairs],
        weight_maps=lambda wildcards: this_run.weight_maps(this_run.model_of(wildcards.model)),
        start=lambda wildcards: this_run.start(wildcards.model) or [],
    output:
        network=paths.NETWORK,
        card=paths.CARD,
        history=report(
            paths.HISTORY,
            caption="../report/history.rst",
            category="Training",
            labels={"model": "{model}", "content": "history"},
        ),
    log:
        paths.LOG["train"],
    benchmark:
        paths.BENCHMARK["train"]
    wildcard_constraints:
        model=any_of(settings.trainings),
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: settings.training.memory_mb * attempt,
        decode_mb=settings.training.memory_mb,
        runtime=time_to_train,
        gpu=1,
    params:
        images=lambda wildcards: settings.training.images,
        labels=lambda wildcards: settings.training.labels,
        weight_maps=lambda wildcards: paths.WEIGHT_MAPS.format(model=this_run.model_of(wildcards.model)),
        names=[pair.name for pair in this_run.pairs],
        held_back=lambda wildcards: [pair.name for pair in this_run.held_back[wildcards.model]],
        config=config_of("train"),
    shell:
        "python -m pipeline train --images {params.images:q} --labels {params.labels:q} --weight-maps {params.weight_maps:q}"
        " --output {output.network:q} --history {output.history:q} --threads {threads} --devices {resources.gpu}"
        " --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"


rule validate:
    """Measure the network of a fold on the images that were held back from it."""
    input:
        images=lambda wildcards: [pair.image for pair in this_run.held_back[wildcards.model]],
        labels=lambda wildcards: [pair.labels for pair in this_run.held_back[wildcards.model]],
        network=paths.NETWORK,
        card=paths.CARD,
    output:
        metrics=paths.VALIDATION,
    log:
        paths.LOG["validate"],
    benchmark:
        paths.BENCHMARK["validate"]
    wildcard_constraints:
        model=any_of(settings.trainings),
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=memory_to_predict,
        decode_mb=budget_mb,
        runtime=time_for_images("validate"),
        gpu=1,
    params:
        images=lambda wildcards: settings.training.images,
        labels=lambda wildcards: settings.training.labels,
        groups={pair.name: group for group, members in this_run.training_groups.items() for pair in members},
        config=config_of("validate"),
    shell:
        "python -m pipeline validate --network {input.network:q} --images {params.images:q} --labels {params.labels:q}"
        " --output {output.metrics:q} --threads {threads} --memory-mb {resources.decode_mb} --config {params.config:q}"
        " > {log:q} 2>&1"


rule combine:
    """Put the networks of an ensemble, or of the folds of a model, into one file."""
    input:
        networks=lambda wildcards: this_run.members(wildcards.model),
        cards=lambda wildcards: list(map(card_beside, this_run.members(wildcards.model))),
    output:
        network=paths.NETWORK,
        card=paths.CARD,
    log:
        paths.LOG["combine"],
    benchmark:
        paths.BENCHMARK["combine"]
    wildcard_constraints:
        model=any_of(settings.averages),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        config=config_of("combine"),
    shell:
        "python -m pipeline combine --networks {input.networks:q} --output {output.network:q}"
        " --config {params.config:q} > {log:q} 2>&1"
