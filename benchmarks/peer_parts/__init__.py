"""The parts of `benchmarks/peers.py`, a module each: its `SIDES`, what each finds, and a table."""
