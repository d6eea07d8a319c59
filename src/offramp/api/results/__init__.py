"""Jobs that look at results: what a store holds, reports, comparisons, claims, advice."""
