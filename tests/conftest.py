"""Settings of every test process, made before torch is imported."""

from __future__ import annotations

import os
import signal

# Test processes share the cores: threads that wait must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

torch.set_num_threads(1)

# A shell that starts this in the background has it ignore Ctrl-C, and so would the commands under test.
signal.signal(signal.SIGINT, signal.default_int_handler)
