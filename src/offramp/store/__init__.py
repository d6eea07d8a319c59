"""What runs leave behind, sealed and locked: nodes, trials, and the table that reports read."""
