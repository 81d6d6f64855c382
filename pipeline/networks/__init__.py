"""Networks on disk: weights and card (``model.json``, which describes them), pretrained weights, compilation,
and how many pixels a GPU takes at once.

A path goes in, a network in evaluation mode comes out, or an error with the reason.
"""
