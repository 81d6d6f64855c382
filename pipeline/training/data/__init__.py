"""Training data: annotated slides go in, batches of augmented patches and boundary weight maps come out.

Patch number i depends on the seed and i only, so that a resumed training sees the same patches.
"""
