"""A store's finished trials, sent to trackers."""
