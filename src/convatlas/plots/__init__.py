"""Figures made with matplotlib, in one style."""
