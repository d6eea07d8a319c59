"""Jobs that keep order: whole stores, trackers, this machine."""
