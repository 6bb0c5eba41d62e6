"""Our own engine for the CPU, in C++: Winograd's filtering, steps fused, concatenations without copies."""
