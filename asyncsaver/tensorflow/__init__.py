"""What programs called in ``tf.train``, without TensorFlow and on any store.

Nothing here needs a `Saver`: the state file ``checkpoint`` and the files of a checkpoint are TensorFlow's own. What differs from
TensorFlow on purpose is listed in ``docs/tensorflow.md``.
"""

from asyncsaver.formats.tensorflow.meta_graph import Meta
from asyncsaver.formats.tensorflow.naming import sharded_filename
from asyncsaver.formats.tensorflow.saver_def import SaverDef
from asyncsaver.formats.tensorflow.state_text import State
from asyncsaver.tensorflow.files import (
    checkpoint_exists,
    get_checkpoint_mtimes,
    map_checkpoint_mtimes,
    meta_graph_filename,
    remove_checkpoint,
    remove_rotated,
)
from asyncsaver.tensorflow.meta import export_meta, import_meta
from asyncsaver.tensorflow.object_based import checkpoint_keys, object_graph_key_mapping
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
    "Meta",
    "Removal",
    "SaverDef",
    "State",
    "checkpoint_exists",
    "checkpoint_keys",
    "export_meta",
    "generate_checkpoint_state",
    "get_checkpoint_mtimes",
    "get_checkpoint_state",
    "import_meta",
    "latest_checkpoint",
    "map_checkpoint_mtimes",
    "meta_graph_filename",
    "object_graph_key_mapping",
    "remove_checkpoint",
    "remove_rotated",
    "sharded_filename",
    "update_checkpoint_state",
]
