"""Removes what a person no longer wants: a whole sweep, or what no sweep uses."""
