"""From pairs to the image store: decoded once, checked, kept in the cache, memory-mapped by every trial."""
