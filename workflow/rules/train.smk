# From annotated images to a trained network, for each entry of `models` and fold. A new slide never triggers it.


rule weigh:
    """Compute the boundary weight maps of the training labels."""
    input:
        before("weigh"),
    output:
        update(paths.NETWORK_LEDGER.replace("{stage}", "weigh")),
    log:
        paths.LOG["weigh"],
    benchmark:
        paths.BENCHMARK["weigh"]
    priority: 100  # what follows waits for the network; other jobs do not hold it up
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        decode_mb=budget_mb,
        runtime=time_for_images("weigh"),
    params:
        folders=training_folders,
        config=config_of("weigh"),
    shell:
        "python -m pipeline weigh --model {wildcards.model:q} {params.folders}"
        " --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"


rule train_network:
    """Train a network, or one of its folds; part of the images is held back."""
    input:
        before("train"),
    output:
        update(paths.NETWORK_LEDGER.replace("{stage}", "train")),
    log:
        paths.LOG["train"],
    benchmark:
        paths.BENCHMARK["train"]
    wildcard_constraints:
        model=any_of(settings.trainings),
    priority: 100
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: settings.training.memory_mb * attempt,
        decode_mb=settings.training.memory_mb,
        runtime=time_to_train,
        gpu=1,
    params:
        folders=training_folders,
        weight_maps=lambda wildcards: paths.WEIGHT_MAPS.format(model=this_run.model_of(wildcards.model)),
        config=config_of("train"),
    shell:
        "python -m pipeline train --model {wildcards.model:q} {params.folders} --weight-maps {params.weight_maps:q}"
        " --threads {threads} --devices {resources.gpu} --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"


rule validate:
    """Measure the network of a fold on the images that were held back from it."""
    input:
        before("validate"),
    output:
        update(paths.NETWORK_LEDGER.replace("{stage}", "validate")),
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
        folders=training_folders,
        config=config_of("validate"),
    shell:
        "python -m pipeline validate --model {wildcards.model:q} {params.folders}"
        " --threads {threads} --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"


rule combine:
    """Put the networks of an ensemble, or of the folds of a model, into one file."""
    input:
        before("combine"),
    output:
        update(paths.NETWORK_LEDGER.replace("{stage}", "combine")),
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
        networks=lambda wildcards: this_run.members(wildcards.model),
        config=config_of("combine"),
    shell:
        "python -m pipeline combine --model {wildcards.model:q} --networks {params.networks:q}"
        " --config {params.config:q} > {log:q} 2>&1"
