"""Arrays and data frames in, arrays and data frames out: no torch, no files."""
