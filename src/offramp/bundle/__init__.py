"""A trained network as files that run without PyTorch: export, card, parity, runtime."""
