# What jobs ask for: memory (MB) and time (minutes), more with every attempt.
from pipeline.project.jobs.todo import Job
from pipeline.project.requested_resources import affordable_mb, batch_mb, minutes, minutes_to_train

affordable, low_memory = affordable_mb(settings.tiling.memory_mb)


def budget_mb(wildcards):
    """What a job may decode, or predict in: on this machine at most what it has, on a cluster what the job asks for."""
    return settings.tiling.memory_mb if on_cluster else affordable


def memory_to_predict(wildcards, attempt):
    return round(1.25 * settings.tiling.memory_mb) * attempt


def memory_to_read(wildcards, threads, attempt):
    return batch_mb(this_run.mpx(wildcards.batch), threads, settings.tiling.memory_mb, attempt)


def threads_for(stage):
    """All cores, up to 8; half of them where `objects` and `evaluate` of a batch can run, and start, side by side."""

    def threads(wildcards):
        both = [Job(each, wildcards.model, wildcards.batch) for each in ("objects", "evaluate")]
        if on_cluster or not this_run.todo.jobs.issuperset(both):
            return 8
        return min(8, max(1, workflow.cores // 2))

    return threads if stage in ("objects", "evaluate") else 8


def memory_for(stage):
    return memory_to_predict if stage == "predict" else memory_to_read


def time_for(stage):
    pairs_per_px = settings.masks.pairs_per_px if stage == "stitch" else 0.0
    return lambda wildcards, attempt: minutes(
        stage, sum(this_run.mpx(wildcards.batch)), attempt, pairs_per_px=pairs_per_px
    )


def time_for_images(stage):
    return lambda wildcards, attempt: minutes(stage, this_run.training_mpx, attempt)


def time_to_train(wildcards, attempt):
    return minutes_to_train(settings.models[this_run.model_of(wildcards.model)], attempt)


def time_to_report(wildcards, attempt):
    return (15 + len(this_run.samples) * len(settings.networks) // 1000) * attempt
