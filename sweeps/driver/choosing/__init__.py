"""Which trial trains next, and the plan for the time that it follows."""
