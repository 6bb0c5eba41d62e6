"""How a network trains on a CPU: kernels, fused layers, and the choice of what is fastest here."""
