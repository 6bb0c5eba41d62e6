"""The engines themselves, one module each."""
