"""The machine: cores, GPUs, and how trials share them."""
