"""What work says while it lasts: lines in a log, and what moves on a terminal or in a notebook."""
