"""Prediction: plans of slides and a network go in, labels (and probabilities) of whole slides come out.

Reading, batching, blending, writing, resuming; also exactness, speed, estimates and explanations of networks.
"""
