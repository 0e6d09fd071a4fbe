"""The parts of `benchmarks/gpu.py`, a module each, whose `find(task)` yields what it finds."""
