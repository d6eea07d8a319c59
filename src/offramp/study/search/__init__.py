"""A search for settings: where they are looked for, how proposals are trained and scored."""
