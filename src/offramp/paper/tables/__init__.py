"""The tables of the paper, made from any runs."""
