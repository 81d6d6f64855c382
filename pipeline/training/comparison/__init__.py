"""Comparison of what can follow a network, on the images held back: ways to tell objects apart, and random fields."""
