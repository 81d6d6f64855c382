"""A network on disk: its weights, the card that describes it, what its training starts from.

A path goes in, a network in evaluation mode comes out, or the reason why the file cannot be used.
"""
