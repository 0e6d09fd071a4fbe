"""One page about a sweep, or several: self-contained HTML that works without a network."""
