"""Compare a mask with its reference. Arguments are (truth, predicted), always in this order.

What cannot be computed is NaN (an empty cell): a ratio with denominator zero, a distance to an empty boundary. A class
in neither mask has no Dice. A class that is only predicted has Dice and precision 0, and no recall.
"""
