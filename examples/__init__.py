"""Examples: the default corpus, a few users, and the tour of `make demo`."""
