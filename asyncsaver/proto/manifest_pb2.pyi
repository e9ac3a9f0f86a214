from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATE_UNSPECIFIED: _ClassVar[State]
    STATE_COMMITTED: _ClassVar[State]
    STATE_DELETED: _ClassVar[State]
    STATE_ABORTED: _ClassVar[State]
STATE_UNSPECIFIED: State
STATE_COMMITTED: State
STATE_DELETED: State
STATE_ABORTED: State

class Manifest(_message.Message):
    __slots__ = ("name", "step", "slot", "created", "writer", "save_id", "sequence", "world_size", "tree", "tensors", "files", "total_bytes", "metrics", "metadata", "saver")
    NAME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    SAVE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    TREE_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    SAVER_FIELD_NUMBER: _ClassVar[int]
    name: str
    step: int
    slot: int
    created: Time
    writer: str
    save_id: str
    sequence: int
    world_size: int
    tree: bytes
    tensors: _containers.RepeatedScalarFieldContainer[bytes]
    files: _containers.RepeatedCompositeFieldContainer[File]
    total_bytes: int
    metrics: bytes
    metadata: bytes
    saver: bytes
    def __init__(self, name: _Optional[str] = ..., step: _Optional[int] = ..., slot: _Optional[int] = ..., created: _Optional[_Union[Time, _Mapping]] = ..., writer: _Optional[str] = ..., save_id: _Optional[str] = ..., sequence: _Optional[int] = ..., world_size: _Optional[int] = ..., tree: _Optional[bytes] = ..., tensors: _Optional[_Iterable[bytes]] = ..., files: _Optional[_Iterable[_Union[File, _Mapping]]] = ..., total_bytes: _Optional[int] = ..., metrics: _Optional[bytes] = ..., metadata: _Optional[bytes] = ..., saver: _Optional[bytes] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("save_id", "rank", "world_size", "files", "tensors")
    SAVE_ID_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    save_id: str
    rank: int
    world_size: int
    files: _containers.RepeatedCompositeFieldContainer[File]
    tensors: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, save_id: _Optional[str] = ..., rank: _Optional[int] = ..., world_size: _Optional[int] = ..., files: _Optional[_Iterable[_Union[File, _Mapping]]] = ..., tensors: _Optional[_Iterable[bytes]] = ...) -> None: ...

class StateFile(_message.Message):
    __slots__ = ("entries", "last_preserved")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LAST_PRESERVED_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    last_preserved: Time
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., last_preserved: _Optional[_Union[Time, _Mapping]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("state", "name", "step", "slot", "etag", "created", "save_id", "sequence", "total_bytes", "world_size", "metrics", "metadata", "pinned", "preserved", "unfinished", "since", "condemned")
    STATE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    SAVE_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    WORLD_SIZE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    PRESERVED_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    CONDEMNED_FIELD_NUMBER: _ClassVar[int]
    state: State
    name: str
    step: int
    slot: int
    etag: str
    created: Time
    save_id: str
    sequence: int
    total_bytes: int
    world_size: int
    metrics: bytes
    metadata: bytes
    pinned: bool
    preserved: bool
    unfinished: bool
    since: Time
    condemned: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, state: _Optional[_Union[State, str]] = ..., name: _Optional[str] = ..., step: _Optional[int] = ..., slot: _Optional[int] = ..., etag: _Optional[str] = ..., created: _Optional[_Union[Time, _Mapping]] = ..., save_id: _Optional[str] = ..., sequence: _Optional[int] = ..., total_bytes: _Optional[int] = ..., world_size: _Optional[int] = ..., metrics: _Optional[bytes] = ..., metadata: _Optional[bytes] = ..., pinned: bool = ..., preserved: bool = ..., unfinished: bool = ..., since: _Optional[_Union[Time, _Mapping]] = ..., condemned: _Optional[_Iterable[str]] = ...) -> None: ...

class Time(_message.Message):
    __slots__ = ("microseconds", "offset_minutes")
    MICROSECONDS_FIELD_NUMBER: _ClassVar[int]
    OFFSET_MINUTES_FIELD_NUMBER: _ClassVar[int]
    microseconds: int
    offset_minutes: int
    def __init__(self, microseconds: _Optional[int] = ..., offset_minutes: _Optional[int] = ...) -> None: ...

class File(_message.Message):
    __slots__ = ("path", "size", "crc32c")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CRC32C_FIELD_NUMBER: _ClassVar[int]
    path: str
    size: int
    crc32c: int
    def __init__(self, path: _Optional[str] = ..., size: _Optional[int] = ..., crc32c: _Optional[int] = ...) -> None: ...

class TensorBatch(_message.Message):
    __slots__ = ("names", "kinds", "kind", "chunks", "slices", "slice", "file", "start", "size", "xxh3_128")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    KINDS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    SLICES_FIELD_NUMBER: _ClassVar[int]
    SLICE_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    XXH3_128_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    kinds: _containers.RepeatedCompositeFieldContainer[Kind]
    kind: _containers.RepeatedScalarFieldContainer[int]
    chunks: _containers.RepeatedScalarFieldContainer[int]
    slices: _containers.RepeatedCompositeFieldContainer[Slice]
    slice: _containers.RepeatedScalarFieldContainer[int]
    file: _containers.RepeatedScalarFieldContainer[int]
    start: _containers.RepeatedScalarFieldContainer[int]
    size: _containers.RepeatedScalarFieldContainer[int]
    xxh3_128: bytes
    def __init__(self, names: _Optional[_Iterable[str]] = ..., kinds: _Optional[_Iterable[_Union[Kind, _Mapping]]] = ..., kind: _Optional[_Iterable[int]] = ..., chunks: _Optional[_Iterable[int]] = ..., slices: _Optional[_Iterable[_Union[Slice, _Mapping]]] = ..., slice: _Optional[_Iterable[int]] = ..., file: _Optional[_Iterable[int]] = ..., start: _Optional[_Iterable[int]] = ..., size: _Optional[_Iterable[int]] = ..., xxh3_128: _Optional[bytes] = ...) -> None: ...

class Kind(_message.Message):
    __slots__ = ("dtype", "shape")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    dtype: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, dtype: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Slice(_message.Message):
    __slots__ = ("offset", "shape")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    offset: _containers.RepeatedScalarFieldContainer[int]
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, offset: _Optional[_Iterable[int]] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...
