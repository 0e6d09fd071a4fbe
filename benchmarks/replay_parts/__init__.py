"""Parts of `benchmarks/replay_search.py`: recorded curves, a surrogate of them, simulated time."""
