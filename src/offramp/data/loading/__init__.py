"""Batches of images, from memory or from files, by worker processes."""
