"""Worker processes: the jobs that they run and how they start."""
