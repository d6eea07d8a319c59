"""offramp trains early-exit networks."""
