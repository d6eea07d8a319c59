"""The page: one HTML file that needs nothing else and no network, and the folder that it lies in."""
