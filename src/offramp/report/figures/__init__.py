"""Figures of a report, a file a family."""
