"""Image files: found, checked, decoded, remembered."""
