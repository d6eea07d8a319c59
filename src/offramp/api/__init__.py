"""What a program calls: from a network, or a study, to results, charts, predictors and bundles."""
