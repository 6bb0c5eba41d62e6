"""Our own engine for the CPU, in C++: Winograd's filtering, the matrix unit, fused steps, no copied parts."""
