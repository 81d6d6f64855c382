"""Networks on disk: their weights, the card that describes them, pretrained weights, and compilation.

A path goes in, a network in evaluation mode comes out, or an error with the reason.
"""
