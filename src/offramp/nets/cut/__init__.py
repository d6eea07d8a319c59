"""Where a network can be cut, and the pieces that a cut makes."""
