"""Answers on pictures."""
