"""What is measured on a mask and its reference. Arguments are (truth, predicted), always in this order.

One policy for what is not there: a ratio has no value (NaN, an empty cell) where its denominator is zero, and a
distance has none where one of the two sides has no boundary. So a class that is absent from truth and from prediction
has no value, and one that was predicted although it is absent has a Dice and a precision of 0 and no recall.
"""
