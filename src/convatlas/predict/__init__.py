"""Predictions on images: inputs, outputs, jobs."""
