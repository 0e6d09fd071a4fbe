"""Models as files: saved, loaded, measured and checked."""
