"""What there is to do, and what it takes: nodes, caches, memory, time, workers."""
