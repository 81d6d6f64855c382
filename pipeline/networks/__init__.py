"""Networks on disk: weights and card (``model.json``, which describes them), pretrained weights, compilation.

A path goes in, a network in evaluation mode comes out, or an error with the reason.
"""
