"""What several architectures are built from: convolution blocks, encoders, up-sampling, auxiliary heads.

Tensors (N, C, H, W) go in and come out.
"""
