"""Images and labels: sources, the order in which they are seen, and augmentation of batches."""
