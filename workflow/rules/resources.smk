# What jobs ask for: memory (MB) and time (minutes), more with every attempt.
from pipeline.project.requested_resources import affordable_mb, files_mpx, minutes, minutes_to_train, reading_mb

affordable, low_memory = affordable_mb(settings.tiling.memory_mb)


def budget_mb(wildcards):
    """What a job may decode, or predict in: on this machine at most what it has, on a cluster what the job asks for."""
    return settings.tiling.memory_mb if on_cluster else affordable


def memory_to_read(wildcards, attempt):
    return reading_mb(max(this_run.mpx(**of_job(wildcards))), settings.tiling.memory_mb, attempt)


def memory_to_predict(wildcards, attempt):
    return round(1.25 * settings.tiling.memory_mb) * attempt


def time_for(stage):
    return lambda wildcards, attempt: minutes(stage, sum(this_run.mpx(**of_job(wildcards))), attempt)


def time_for_images(stage):
    return lambda wildcards, input, attempt: minutes(stage, files_mpx(input.images), attempt)


def time_to_train(wildcards, attempt):
    return minutes_to_train(settings.models[this_run.model_of(wildcards.model)], attempt)


def time_to_report(wildcards, attempt):
    """The pictures of one sample and model take about a second."""
    return (15 + len(this_run.slides) * len(settings.networks) // 60) * attempt
