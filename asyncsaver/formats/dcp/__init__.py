"""Folders of PyTorch's `torch.distributed.checkpoint`, read without PyTorch."""

from asyncsaver.formats.dcp.checkpoint import describe

__all__ = ["describe"]
