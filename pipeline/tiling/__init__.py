"""A slide becomes a plan: tiles with halos and mirrored borders, which cover the tissue and fit the memory budget.

A slide and the card of a network (``model.json``) go in, the plan comes out.
"""
