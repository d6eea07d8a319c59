"""Runs in the trackers that laboratories have open.

A store is read, while others train into it and after; no training loop knows of it, so no bit depends on
it. `send` says what goes where; a tracker is an entry of `TRACKERS`.
"""
