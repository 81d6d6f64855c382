# From a slide to its mask and metrics. A slide that cannot be read fails in its own `stitch`; the others finish.


rule segmented:
    """Segment every slide; in slices of it with `--batch segmented=1/4`."""
    input:
        lambda wildcards: this_run.per_slide(paths.OBJECTS),


rule tile:
    """Plan the tiles that cover one slide, and measure its intensities."""
    input:
        slide=slide_of,
        card=card_of,
    output:
        plan=paths.PLAN,
    log:
        paths.LOG["tile"],
    benchmark:
        paths.BENCHMARK["tile"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_to_read,
        decode_mb=budget_mb,
        runtime=time_for("tile"),
    params:
        version=version_of,
        config=config_of("tile"),
    shell:
        "python -m pipeline tile --sample={wildcards.sample:q} --slide {input.slide:q} --model {input.card:q}"
        " --output {output.plan:q} --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"


rule predict:
    """Segment the slides of a batch with one loaded network."""
    input:
        network=network_of,
        plans=lambda wildcards: [
            paths.PLAN.format(model=wildcards.model, sample=name) for name in this_run.batches[wildcards.batch]
        ],
    output:
        prediction=paths.PREDICTION,
        speed=paths.SPEED,
    log:
        paths.LOG["predict"],
    benchmark:
        paths.BENCHMARK["predict"]
    conda:
        "../../environment.yml"
    threads: 8
    resources:
        mem_mb=memory_to_predict,
        decode_mb=budget_mb,
        runtime=time_for("predict"),
        gpu=1,
    params:
        plans=paths.PLANS,
        slides=paths.SLIDES,
        config=config_of("predict"),
    shell:
        "python -m pipeline predict --network {input.network:q} --plans {params.plans:q} --slides {params.slides:q}"
        " --batch={wildcards.batch:q} --output {output.prediction:q} --speed {output.speed:q} --threads {threads} --memory-mb {resources.decode_mb}"
        " --config {params.config:q} > {log:q} 2>&1"


rule stitch:
    """Make one seamless mask of a predicted slide."""
    input:
        prediction=prediction_of,
        plan=paths.PLAN,
        card=card_of,
    output:
        mask=paths.MASK,
    log:
        paths.LOG["stitch"],
    benchmark:
        paths.BENCHMARK["stitch"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_to_read,
        runtime=time_for("stitch"),
    params:
        config=config_of("stitch"),
    shell:
        "python -m pipeline stitch --sample={wildcards.sample:q} --prediction {input.prediction:q} --plan {input.plan:q}"
        " --model {input.card:q} --output {output.mask:q} --config {params.config:q} > {log:q} 2>&1"


rule objects:
    """List the objects of one mask, as a table and as outlines."""
    input:
        slide=slide_of,
        mask=paths.MASK,
    output:
        table=paths.OBJECTS,
        annotations=paths.ANNOTATIONS,
    log:
        paths.LOG["objects"],
    benchmark:
        paths.BENCHMARK["objects"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_to_read,
        decode_mb=budget_mb,
        runtime=time_for("objects"),
    params:
        config=config_of("objects"),
    shell:
        "python -m pipeline objects --sample={wildcards.sample:q} --model={wildcards.model:q} --slide {input.slide:q}"
        " --mask {input.mask:q} --table {output.table:q} --annotations {output.annotations:q} --memory-mb {resources.decode_mb}"
        " --config {params.config:q} > {log:q} 2>&1"


rule inspect:
    """Measure brightness, colour, focus and content of one slide."""
    input:
        slide=slide_of,
    output:
        appearance=paths.APPEARANCE,
    log:
        paths.LOG["inspect"],
    benchmark:
        paths.BENCHMARK["inspect"]
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory_to_read,
        decode_mb=budget_mb,
        runtime=time_for("inspect"),
    params:
        version=version_of,
        config=config_of("inspect"),
    shell:
        "python -m pipeline inspect --slide {input.slide:q} --output {output.appearance:q}"
        " --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"


rule evaluate:
    """Compare one mask with its reference."""
    input:
        mask=paths.MASK,
        slide=slide_of,
        reference=lambda wildcards: this_run.references[wildcards.sample],
        prediction=probabilities_of,
    output:
        metrics=report(
            paths.METRICS,
            caption="../report/metrics.rst",
            category="Metrics",
            subcategory="Samples",
            labels={"model": "{model}", "sample": "{sample}"},
        ),
    log:
        paths.LOG["evaluate"],
    benchmark:
        paths.BENCHMARK["evaluate"]
    conda:
        "../../environment.yml"
    threads: 2
    resources:
        mem_mb=memory_to_read,
        decode_mb=budget_mb,
        runtime=time_for("evaluate"),
    params:
        prediction=lambda wildcards: flag_with("--prediction", probabilities_of(wildcards)),
        config=config_of("evaluate"),
    shell:
        "python -m pipeline evaluate --sample={wildcards.sample:q} --model={wildcards.model:q} --mask {input.mask:q}"
        " --slide {input.slide:q} --reference {input.reference:q} {params.prediction} --output {output.metrics:q} --threads {threads}"
        " --memory-mb {resources.decode_mb} --config {params.config:q} > {log:q} 2>&1"
