"""What programs called in ``tf.train``, without TensorFlow and on any store.

Nothing here needs a `Saver`: the state file ``checkpoint`` and the files of a checkpoint are TensorFlow's own. What differs from
TensorFlow on purpose is listed in ``docs/tensorflow.md``.
"""

from asyncsaver.formats.tensorflow.state_text import State
from asyncsaver.tensorflow.files import (
    checkpoint_exists,
    get_checkpoint_mtimes,
    map_checkpoint_mtimes,
    meta_graph_filename,
    remove_checkpoint,
    remove_rotated,
)
from asyncsaver.tensorflow.retention import CheckpointList, Kept, Removal
from asyncsaver.tensorflow.state import (
    generate_checkpoint_state,
    get_checkpoint_state,
    latest_checkpoint,
    update_checkpoint_state,
)

__all__ = [
    "CheckpointList",
    "Kept",
    "Removal",
    "State",
    "checkpoint_exists",
    "generate_checkpoint_state",
    "get_checkpoint_mtimes",
    "get_checkpoint_state",
    "latest_checkpoint",
    "map_checkpoint_mtimes",
    "meta_graph_filename",
    "remove_checkpoint",
    "remove_rotated",
    "update_checkpoint_state",
]
