"""Jobs that train, and what they need: studies, recipes, strategies, places for exits, data."""
