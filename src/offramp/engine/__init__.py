"""Trains phases: passes over images, caches of frozen values, losses, costs."""
