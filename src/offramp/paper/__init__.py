"""What is the paper's alone: recipes, claims, guidelines, families of metrics."""
