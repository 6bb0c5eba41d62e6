"""What a training leaves behind: run folders, their locks, checkpoints."""
