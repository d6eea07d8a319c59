"""Jobs that bring a network into use: policies, bundles, answers, times, a server."""
