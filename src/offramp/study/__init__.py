"""From a study file to trained trials: read it, plan it, run it; build."""
