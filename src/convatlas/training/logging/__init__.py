"""What a training reports while it runs: events, metrics, progress, the report."""
