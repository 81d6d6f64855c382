# What jobs ask for: memory (MB) and time (minutes) from the size of their slides, more with every attempt.
from pipeline.project.job_resources import affordable_mb, files_mpx, minutes, reading_mb, slide_mpx

affordable, what_is_there = affordable_mb(settings.tiling.memory_mb)


def budget_mb(wildcards):
    """What a job may decode, or predict in: on this machine no more than it has. A job of a cluster gets what it asks."""
    return settings.tiling.memory_mb if on_cluster else affordable


def mpx_of(wildcards):
    """Return the millions of pixels of the slides of a job, and of the largest of them."""
    names = batches[wildcards.batch] if hasattr(wildcards, "batch") else [wildcards.sample]
    model = getattr(wildcards, "model", None)
    plans = [Path(f"results/plans/{model}/{name}.json") if model else None for name in names]
    sizes = [slide_mpx(samples[name], plan) for name, plan in zip(names, plans)]
    return sum(sizes), max(sizes)


def memory_to_read(wildcards, attempt):
    return reading_mb(mpx_of(wildcards)[1], settings.tiling.memory_mb, attempt)


def memory_to_predict(wildcards, attempt):
    return round(1.25 * settings.tiling.memory_mb) * attempt


def time_for(stage):
    return lambda wildcards, attempt: minutes(stage, mpx_of(wildcards)[0], attempt)


def time_for_images(stage):
    return lambda wildcards, input, attempt: minutes(stage, files_mpx(input.images), attempt)


def time_to_train(wildcards, attempt):
    return round(settings.models[model_of(wildcards)].max_minutes * 1.2 + 30) * attempt


def time_to_report(wildcards, attempt):
    """Pictures of each sample and model take about a second."""
    return (15 + len(slides) * len(settings.networks) // 60) * attempt


def say_budget():
    """Say once where this machine has less memory than is configured."""
    if what_is_there and not on_cluster:
        logger.warning(what_is_there)
