"""One trial's training: epochs, checkpoints, what feeds them, and what they cost."""
