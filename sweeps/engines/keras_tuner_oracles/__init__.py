"""Keras Tuner's oracles as engines."""
