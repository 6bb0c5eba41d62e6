"""Studies of what joins layers: shortcuts, columns, dense connections."""
