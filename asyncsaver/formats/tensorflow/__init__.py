"""TensorFlow's checkpoints, without TensorFlow: V2, V1 and object-based ones, and the files beside them.

Only `describe` and what stands in a room of its own is for other packages; below `describe` everything is pure and takes bytes.
"""

from __future__ import annotations

try:
    import google.protobuf  # noqa: F401
except ImportError as error:
    raise ImportError(
        "TensorFlow's checkpoints need protobuf, which is not installed: pip install 'asyncsaver[tensorflow]'",
        name="google.protobuf",
    ) from error
