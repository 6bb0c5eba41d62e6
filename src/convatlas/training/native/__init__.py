"""Our own C++ for training on a CPU."""
