"""PyTorch's distributed checkpoint, from one process: to a folder, through fsspec, and through s3torchconnector."""

from __future__ import annotations

import asyncio
import os
import warnings
from abc import abstractmethod
from typing import Any

import torch
import torch.distributed.checkpoint as dcp

from peers.contract import BUCKET, REGION, Peer, Place, State


class Dcp(Peer):
    """`dcp.save` and `dcp.load`, in a thread.

    Args:
        place: where to.
        threads: of the writer.
    """

    def __init__(self, place: Place, *, threads: int) -> None:
        super().__init__(place)
        self._threads = threads
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")

    @abstractmethod
    def _writer(self, name: str) -> Any: ...

    @abstractmethod
    def _reader(self, name: str) -> Any: ...

    async def prepare_save(self, state: State) -> None:
        await asyncio.to_thread(dcp.save, {"w": torch.zeros(8)}, storage_writer=self._writer("warm"), no_dist=True)

    async def prepare_restore(self, target: State) -> None:
        await asyncio.to_thread(dcp.load, {"w": torch.zeros(8)}, storage_reader=self._reader("warm"), no_dist=True)

    async def save(self, state: State) -> None:
        await asyncio.to_thread(dcp.save, _tensors(state), storage_writer=self._writer("dcp"), no_dist=True)

    async def restore(self, target: State) -> State:
        await asyncio.to_thread(dcp.load, _tensors(target), storage_reader=self._reader("dcp"), no_dist=True)
        return target


class DcpFile(Dcp):
    """To a folder; it syncs each file."""

    def _writer(self, name: str) -> Any:
        return dcp.FileSystemWriter(self.place.path / name, thread_count=self._threads)

    def _reader(self, name: str) -> Any:
        return dcp.FileSystemReader(self.place.path / name)


class DcpFsspec(Dcp):
    """Through `FsspecWriter` and s3fs."""

    def _writer(self, name: str) -> Any:
        from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter  # noqa: PLC0415 - needs fsspec

        # With sync_files it would sync the whole machine, since these files have no descriptor.
        return FsspecWriter(
            f"s3://{BUCKET}/{name}", thread_count=self._threads, sync_files=False, **self.place.storage_options
        )

    def _reader(self, name: str) -> Any:
        from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader  # noqa: PLC0415 - needs fsspec

        return FsspecReader(f"s3://{BUCKET}/{name}", **self.place.storage_options)


class DcpS3Connector(Dcp):
    """Through s3torchconnector's `S3StorageWriter`."""

    def __init__(self, place: Place, *, threads: int) -> None:
        super().__init__(place, threads=threads)
        os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench")

    def _writer(self, name: str) -> Any:
        from s3torchconnector.dcp import S3StorageWriter  # noqa: PLC0415 - optional

        return self._on_endpoint(
            S3StorageWriter(REGION, f"s3://{BUCKET}/{name}", self._config(), thread_count=self._threads)
        )

    def _reader(self, name: str) -> Any:
        from s3torchconnector.dcp import S3StorageReader  # noqa: PLC0415 - optional

        return self._on_endpoint(S3StorageReader(REGION, f"s3://{BUCKET}/{name}", self._config()))

    def _config(self) -> Any:
        from s3torchconnector import S3ClientConfig  # noqa: PLC0415 - optional

        return S3ClientConfig(force_path_style=True)

    def _on_endpoint(self, storage: Any) -> Any:
        from s3torchconnector._s3client import S3Client  # noqa: PLC0415 - optional

        # Neither takes an endpoint.
        storage.fs._client = S3Client(REGION, endpoint=self.place.endpoint, s3client_config=self._config())
        return storage


def _tensors(state: State) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in state.items()}
