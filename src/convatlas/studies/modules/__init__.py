"""Studies of the modules that networks are made of, and what they cost."""
