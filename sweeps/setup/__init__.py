"""From settings to an opened sweep: checks, data, space, stores."""
