"""How a sweep stands: a row for each trial, and who is shown that."""
