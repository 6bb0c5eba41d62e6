"""The claims of the papers, as programs that measure them and give a verdict."""
