"""Variables: named things that a saver is bound to, which it saves without being given a state and restores in place."""

from asyncsaver.model.partitioned import Partitioned, Slice
from asyncsaver.model.shard_keys import shards_by_key
from asyncsaver.variables.bind import bind
from asyncsaver.variables.bound import Assignment, Bound
from asyncsaver.variables.restore import restore_variables
from asyncsaver.variables.saveable import Saveable, SaveSpec, SliceInfo
from asyncsaver.variables.variable import Variable

__all__ = [
    "Assignment",
    "Bound",
    "Partitioned",
    "SaveSpec",
    "Saveable",
    "Slice",
    "SliceInfo",
    "Variable",
    "bind",
    "restore_variables",
    "shards_by_key",
]
