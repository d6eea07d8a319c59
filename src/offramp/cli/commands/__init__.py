"""A file a command: what it is asked, and what it does with that. Their order is that of the help, where
groups stand last."""

COMMANDS = (
    *("run", "train", "search", "status", "watch", "track", "show", "why", "gc", "export_table"),
    *("strategies", "recipes", "taps", "doctor", "compare", "stats", "claims", "recommend"),
    *("report", "figures", "tables", "pack", "calibrate", "export", "build", "predict"),
    *("serve", "push", "benchmark", "completion", "data", "store"),
)
