"""What is known of each network without building it: cards, sizes, accuracies. Needs no torch."""
