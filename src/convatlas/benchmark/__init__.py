"""How fast networks are on this machine, engine by engine."""
