"""Layers that several architectures share: convolution blocks, encoders, up-sampling, auxiliary heads.

Tensors (N, C, H, W) go in and come out.
"""
