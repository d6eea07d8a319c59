"""A plan carried out, in one process or several, into a store."""
