"""What is measured: which state goes where, and who is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peers.contract import What
from peers.listing import CLOUD_REQUESTS
from states import Shape

MIB = 2**20
TENSOR_BYTES = 16 * MIB
CLOUD_MIB = 256  # what the servers of the tests hold easily

S3_PEERS = (
    "obstore, 16 at once",
    "obstore, 32 at once",
    "obstore, 64 at once",
    "asyncsaver",
    "asyncsaver, fsspec",
    "tensorstore, 32 at once",
    "boto3, 16 threads",
    "s3fs _pipe_file, 16 at once",
    "DCP s3torchconnector",
    "DCP FsspecWriter",
)
GCS_PEERS = ("asyncsaver, fsspec", *(f"gcsfs _pipe_file, {count} at once" for count in CLOUD_REQUESTS))
AZURE_PEERS = (
    "asyncsaver, fsspec",
    "asyncsaver, obstore",
    *(f"adlfs _pipe_file, {count} at once" for count in CLOUD_REQUESTS),
)
DISK_PEERS = (
    "raw O_DIRECT, 4 threads",
    "asyncsaver",
    "safetensors + fsync",
    "DCP FileSystemWriter",
    "tensorstore, 32 at once",
    "torch.save + fsync",
    "Orbax",
)
TENSORFLOW_PEERS = ("asyncsaver, TensorFlow's files", "tf.train.Saver", "tf.train.Checkpoint")


@dataclass(frozen=True, slots=True)
class Scenario:
    """One table of the report.

    Attributes:
        name: for the command line.
        title: for people.
        kind: of the place: "s3", "gs", "az", "disk" or "memory".
        shape: of the state.
        peers: who takes part.
        latency_ms: of the endpoint.
        bandwidth_mb: of each connection to it.
        whats: what is measured, in this order.
        rehearsals: unmeasured saves before the measured one.
    """

    name: str
    title: str
    kind: str
    shape: Shape
    peers: Sequence[str]
    latency_ms: float = 0
    bandwidth_mb: float = 0
    whats: Sequence[What] = ("save", "restore")
    rehearsals: int = 0


def scenarios(mib: int) -> Sequence[Scenario]:
    """All of them, with a state of so many MiB where nothing else is said."""
    usual = Shape(max(1, mib * MIB // TENSOR_BYTES), TENSOR_BYTES)
    large = Shape(4 * usual.tensors, TENSOR_BYTES)
    cloud = Shape(max(1, min(mib, CLOUD_MIB) * MIB // TENSOR_BYTES), TENSOR_BYTES)
    cloud_size = f"{cloud.nbytes // MIB} MiB in {cloud.tensors} tensors"
    size, large_size = f"{usual.nbytes // MIB} MiB in {usual.tensors} tensors", f"{large.nbytes // MIB} MiB"
    small = [
        Scenario(
            f"small-{count // 1000}k-{kind}",
            f"{count:,} tensors of 1 KiB, {where}",
            kind,
            Shape(count, 1024),
            ("asyncsaver", *more, f"safetensors + {how}", f"torch.save + {how}"),
        )
        for count in (10_000, 100_000)
        for kind, where, how, more in (
            ("disk", "local disk, durable", "fsync", ()),
            ("s3", "S3 on loopback", "obstore", ("asyncsaver, fsspec",)),
        )
    ]
    return (
        Scenario(
            "s3-slow",
            f"S3, 30 ms and 90 MB/s a connection: {size}",
            "s3",
            usual,
            ("raw sockets, 64", *S3_PEERS),
            latency_ms=30,
            bandwidth_mb=90,
        ),
        Scenario("s3", f"S3 on loopback, no delay: {size}", "s3", usual, ("raw sockets, 4", *S3_PEERS)),
        Scenario("gcs", f"GCS, fake-gcs-server on loopback: {cloud_size}", "gs", cloud, GCS_PEERS),
        Scenario("azure", f"Azure, Azurite on loopback: {cloud_size}", "az", cloud, AZURE_PEERS),
        Scenario("disk", f"Local disk, durable; restore with a cold cache: {size}", "disk", usual, DISK_PEERS),
        Scenario(
            "tensorflow",
            f"TensorFlow's files on a local disk; only ours are durable: {size}",
            "disk",
            usual,
            TENSORFLOW_PEERS,
            whats=("save", "restore", "restore, warm"),
        ),
        Scenario(
            "memory-s3",
            f"Memory: {large_size}, budget 256 MiB, S3 on loopback",
            "s3",
            large,
            ("asyncsaver, 256 MiB", "asyncsaver, fsspec, 256 MiB"),
        ),
        Scenario("memory-disk", f"Memory: {large_size}, budget 256 MiB, disk", "disk", large, ("asyncsaver, 256 MiB",)),
        Scenario(
            "staging",
            f"Until a background save returns: {size}; the second save of a process",
            "memory",
            usual,
            ("np.copyto", "np.copyto, fresh memory", "asyncsaver, staging"),
            whats=("save",),
            rehearsals=1,
        ),
        *small,
    )
