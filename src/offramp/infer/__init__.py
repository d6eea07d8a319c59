"""Runs a trained network or a bundle under a policy: predictor, stages, timing."""
