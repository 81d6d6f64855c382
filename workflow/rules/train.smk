# From annotated images to a trained network, once per entry of `models` and fold. Never triggered by a new slide.


rule weigh:
    """Compute the boundary weight maps of the training labels."""
    input:
        images=[pair.image for pair in pairs],
        labels=[pair.labels for pair in pairs],
    output:
        [f"results/weights/{{model}}/{pair.name}.tif" for pair in pairs],
    log:
        "logs/weigh/{model}.log",
    benchmark:
        "benchmarks/weigh/{model}.tsv"
    conda:
        "../../environment.yml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        decode_mb=budget_mb,
        runtime=time_for_images("weigh"),
    params:
        images=training_images,
        labels=training_labels,
        weights=weights_folder,
        names=[pair.name for pair in pairs],
        config=config_of("weigh"),
    shell:
        "python -m pipeline weigh --images {params.images:q} --labels {params.labels:q} --output {params.weights:q}"
        " --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"


rule train:
    """Train a network, or one of its folds; part of the images is held back."""
    input:
        images=[pair.image for pair in pairs],
        labels=[pair.labels for pair in pairs],
        weights=weight_maps,
        start=start_file,
    output:
        network="results/models/{model}/model.safetensors",
        card="results/models/{model}/model.json",
        history=report(
            "results/models/{model}/history.csv",
            caption="../report/history.rst",
            category="Training",
            labels={"model": "{model}", "content": "history"},
        ),
    log:
        "logs/train/{model}.log",
    benchmark:
        "benchmarks/train/{model}.tsv"
    wildcard_constraints:
        model=any_of(trained),
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=lambda wildcards, attempt: settings.training.memory_mb * attempt,
        decode_mb=settings.training.memory_mb,
        runtime=time_to_train,
        gpu=1,
    params:
        images=training_images,
        labels=training_labels,
        weights=weights_folder,
        names=[pair.name for pair in pairs],
        held_back=names_held_back,
        config=config_of("train"),
    shell:
        "python -m pipeline train --images {params.images:q} --labels {params.labels:q} --weights {params.weights:q}"
        " --output {output.network:q} --history {output.history:q} --threads {threads} --devices {resources.gpu}"
        " --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"


rule validate:
    """Measure the network of a fold on the images that were held back from it."""
    input:
        images=lambda wildcards: [pair.image for pair in held_back[wildcards.model]],
        labels=lambda wildcards: [pair.labels for pair in held_back[wildcards.model]],
        network="results/models/{model}/model.safetensors",
        card="results/models/{model}/model.json",
    output:
        metrics="results/validation/{model}.csv",
    log:
        "logs/validate/{model}.log",
    benchmark:
        "benchmarks/validate/{model}.tsv"
    wildcard_constraints:
        model=any_of(trained),
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=memory_to_predict,
        decode_mb=budget_mb,
        runtime=time_for_images("validate"),
        gpu=1,
    params:
        images=training_images,
        labels=training_labels,
        groups=group_of_training_images,
        config=config_of("validate"),
    shell:
        "python -m pipeline validate --weights {input.network:q} --images {params.images:q} --labels {params.labels:q}"
        " --output {output.metrics:q} --threads {threads} --memory-mb {resources.decode_mb} --config {params.config:q}"
        " > {log:q} 2>&1"


rule combine:
    """Put the networks of an ensemble, or of the folds of a model, into one file."""
    input:
        networks=members_of,
        cards=lambda wildcards: list(map(card_beside, members_of(wildcards))),
    output:
        network="results/models/{model}/model.safetensors",
        card="results/models/{model}/model.json",
    log:
        "logs/combine/{model}.log",
    benchmark:
        "benchmarks/combine/{model}.tsv"
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
