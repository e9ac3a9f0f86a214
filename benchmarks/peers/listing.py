"""All peers by name, and what each of them needs."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peers.contract import Peer, Place

COPYING_THREADS = min(8, (os.cpu_count() or 2) + 2)  # as many as asyncsaver has for the same

CLOUD_REQUESTS = (4, 16, 32)  # at once


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer.

    Attributes:
        where: module and class.
        needs: modules that must be there.
        extra: of asyncsaver, which brings them.
        options: for the class.
    """

    where: str
    needs: tuple[str, ...] = ()
    extra: str = "bench"
    options: Mapping[str, Any] = field(default_factory=dict)

    def missing(self) -> str:
        """The first module that is needed and not there, or nothing."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), "")

    def make(self, place: Place) -> Peer:
        """The peer itself."""
        module, _, name = self.where.partition(":")
        made: Peer = getattr(importlib.import_module(f"peers.{module}"), name)(place, **self.options)
        return made


PEERS: Mapping[str, Entry] = {
    "asyncsaver": Entry("own:AsyncSaver"),
    "asyncsaver, fsspec": Entry("own:AsyncSaver", options={"engine": "fsspec"}),
    "asyncsaver, obstore": Entry("own:AsyncSaver", ("obstore",), options={"engine": "obstore"}),
    "asyncsaver, 256 MiB": Entry("own:AsyncSaver", options={"memory_budget": 256}),
    "asyncsaver, fsspec, 256 MiB": Entry("own:AsyncSaver", options={"engine": "fsspec", "memory_budget": 256}),
    "asyncsaver, staging": Entry("own:AsyncSaver", options={"background": True, "memory_budget": 1 << 20}),
    "np.copyto": Entry("copies:Copies", options={"threads": COPYING_THREADS, "fresh": False}),
    "np.copyto, fresh memory": Entry("copies:Copies", options={"threads": COPYING_THREADS, "fresh": True}),
    "raw sockets, 4": Entry("raw_sockets:RawSockets", options={"threads": 4}),
    "raw sockets, 64": Entry("raw_sockets:RawSockets", options={"threads": 64}),
    "obstore, 16 at once": Entry("raw_obstore:RawObstore", ("obstore",), options={"at_once": 16}),
    "obstore, 32 at once": Entry("raw_obstore:RawObstore", ("obstore",), options={"at_once": 32}),
    "obstore, 64 at once": Entry("raw_obstore:RawObstore", ("obstore",), options={"at_once": 64}),
    "s3fs _pipe_file, 16 at once": Entry("raw_s3fs:RawS3fs", ("s3fs",), "s3", {"at_once": 16}),
    **{
        f"gcsfs _pipe_file, {count} at once": Entry("raw_gcsfs:RawGcsfs", ("gcsfs",), "gcs", {"at_once": count})
        for count in CLOUD_REQUESTS
    },
    **{
        f"adlfs _pipe_file, {count} at once": Entry("raw_adlfs:RawAdlfs", ("adlfs",), "azure", {"at_once": count})
        for count in CLOUD_REQUESTS
    },
    "boto3, 16 threads": Entry("raw_boto3:RawBoto3", ("boto3",), options={"threads": 16}),
    "tensorstore, 32 at once": Entry(
        "raw_tensorstore:RawTensorstore", ("tensorstore",), "bench-tensorstore", {"at_once": 32}
    ),
    "DCP FsspecWriter": Entry("dcp:DcpFsspec", ("torch", "s3fs"), "bench-torch", {"threads": 16}),
    "DCP s3torchconnector": Entry(
        "dcp:DcpS3Connector", ("torch", "s3torchconnector", "tenacity"), "bench-torch", {"threads": 16}
    ),
    "DCP FileSystemWriter": Entry("dcp:DcpFile", ("torch",), "bench-torch", {"threads": 4}),
    "safetensors + fsync": Entry("plain_safetensors:SafetensorsFile", ("safetensors", "obstore")),
    "safetensors + obstore": Entry("plain_safetensors:SafetensorsObject", ("safetensors", "obstore")),
    "torch.save + fsync": Entry("plain_torch:TorchFile", ("torch",), "bench-torch"),
    "torch.save + obstore": Entry("plain_torch:TorchObject", ("torch", "obstore"), "bench-torch"),
    "asyncsaver, TensorFlow's files": Entry(
        "own:AsyncSaver", ("google.protobuf",), "tensorflow", {"format": "tensorflow"}
    ),
    "tf.train.Saver": Entry("tensorflow_files:TrainSaver", ("tensorflow",), "oracle"),
    "tf.train.Checkpoint": Entry("tensorflow_files:TrainCheckpoint", ("tensorflow",), "oracle"),
    "Orbax": Entry("orbax:Orbax", ("orbax", "jax"), "bench-orbax"),
    "raw O_DIRECT, 4 threads": Entry("direct_io:DirectIO", options={"threads": 4}),
}
