"""What a sweep shows while it runs and at its end."""
