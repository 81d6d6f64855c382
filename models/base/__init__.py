"""The base of all networks: interface, geometry, measured context and cost, folding and rounding for prediction.

Architectures are in the folder above, their common layers in :mod:`models.layers`.
"""
