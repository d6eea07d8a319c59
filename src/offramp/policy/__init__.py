"""Where each input leaves: scores, thresholds, solving, guarantees. Arrays only."""
