"""Which network to take, given limits on time, size and accuracy."""
