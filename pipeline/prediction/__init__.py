"""Prediction: plans of slides and a network go in, labels (and probabilities) of whole slides come out.

Also here: the check that tiles equal one pass, estimates of time and memory, and what a network looks at.
"""
