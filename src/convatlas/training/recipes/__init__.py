"""Training recipes: their fields, the files that hold them, and which network has which."""
