"""A slide becomes a plan: tiles with halos and mirrored borders, tissue, and what the memory budget allows.

The header of a slide and the card of a network go in, the plan comes out; no pixel is copied.
"""
