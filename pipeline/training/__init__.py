"""From annotated slides to a trained network: loop, step, optimizer, several processes, state, history.

Patches come from :mod:`pipeline.training.data`, losses from :mod:`pipeline.training.losses`.
"""
