"""The commands, and the loop that ties engine, executor and tracker together."""
