"""Figures, tables and one page, from a store or from packed results. No torch."""
