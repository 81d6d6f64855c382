"""What compressed tiles tell before they are decoded: how large they become, whether they are whole, and exact.

Readers give the bytes of a tile, strip or chunk and the name of its compression; sizes and reasons come out.
"""
