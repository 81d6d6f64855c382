"""Compare a mask with its reference. Arguments are (truth, predicted), always in this order.

A metric has no value (NaN, an empty cell) if it cannot be computed: a ratio whose denominator is zero, a distance
between boundaries of which one is empty. So a class that is absent from truth and prediction has no value, and one that
was predicted although it is absent from the truth has a Dice and a precision of 0 and no recall.
"""
