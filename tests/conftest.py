"""Settings of every test process, made before torch is imported."""

from __future__ import annotations

import os

# Test processes share the cores: threads that wait must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

torch.set_num_threads(1)
