"""The loop of a sweep, and the parts that it is made of."""
