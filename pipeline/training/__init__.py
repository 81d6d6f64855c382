"""Training: annotated slides and a configuration go in, a trained network and its history come out.

Patches come from :mod:`pipeline.training.data`, losses from :mod:`pipeline.training.losses`.
"""
