"""A bundle behind HTTP: requests become batches, and each image is answered when it leaves."""
