# What jobs ask for: memory (MB) and time (minutes), more with every attempt.
from pipeline.project.jobs.order import Job
from pipeline.project.requested_resources import affordable_mb, batch_mb, minutes, minutes_to_train

affordable, low_memory = affordable_mb(settings.tiling.memory_mb)


def budget_for(stage):
    """What a job may decode, or predict in: on this machine at most what it has, on a cluster what the job asks for."""
    if stage in ("train", "combine"):
        return settings.training.memory_mb
    return settings.tiling.memory_mb if on_cluster else affordable


def is_compared(model):
    """Return whether `combine` predicts held-back images, beside writing an ensemble."""
    return this_run.compared_mpx(model) > 0


def threads_for(stage):
    """All cores, up to 8; half of them where `objects` and `evaluate` of a batch can run, and start, side by side."""

    def threads(wildcards):
        both = [Job(each, wildcards.model, wildcards.batch) for each in ("objects", "evaluate")]
        if on_cluster or not this_run.todo.jobs.issuperset(both):
            return 8
        return min(8, max(1, workflow.cores // 2))

    combine = lambda wildcards: 8 if is_compared(wildcards.model) else 1
    return {"weigh": 1, "combine": combine, "objects": threads, "evaluate": threads}.get(stage, 8)


def memory_for(stage):
    def memory(wildcards, threads, attempt):
        if stage == "weigh" or (stage == "combine" and not is_compared(wildcards.model)):
            return 4000 * attempt
        if stage in ("train", "combine"):
            return settings.training.memory_mb * attempt
        if stage in ("validate", "predict"):
            return round(1.25 * settings.tiling.memory_mb) * attempt
        return batch_mb(this_run.mpx(wildcards.batch), threads, settings.tiling.memory_mb, attempt)

    return memory


def time_for(stage):
    pairs_per_px = settings.masks.pairs_per_px if stage == "stitch" else 0.0

    def time(wildcards, attempt):
        if stage == "train":
            return minutes_to_train(settings.models[this_run.model_of(wildcards.model)], attempt)
        if stage in STAGES:
            mpx = sum(this_run.mpx(wildcards.batch))
        else:
            mpx = this_run.compared_mpx(wildcards.model) if stage == "combine" else this_run.training_mpx
        return minutes(stage, mpx, attempt, pairs_per_px=pairs_per_px)

    return time


def time_to_report(wildcards, attempt):
    return (15 + len(this_run.samples) * len(settings.networks) // 1000) * attempt
