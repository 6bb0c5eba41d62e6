"""One file for each paper; `registry` builds by name, `cards` says where each network comes from."""
