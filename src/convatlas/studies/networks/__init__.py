"""Studies of whole networks: the chart of the atlas, receptive fields, scaling."""
