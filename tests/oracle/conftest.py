"""TensorFlow is told to be quiet before anything imports it, and has the processor alone."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # what its kernels log goes to the terminal, past pytest
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
