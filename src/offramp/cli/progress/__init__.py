"""What a command says while it works: lines in a log, and what moves on a terminal."""
