"""The definition of a saver, its sidecars, and being the default one, as with TensorFlow's saver."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

from asyncsaver.aio.defaults import as_default
from asyncsaver.aio.guard import LoopGuard, guarded
from asyncsaver.layout.contract import Layout
from asyncsaver.model.config import SaverConfig

if TYPE_CHECKING:
    from asyncsaver.formats.tensorflow.meta_graph import Values
    from asyncsaver.formats.tensorflow.saver_def import SaverDef
    from asyncsaver.tensorflow.definition import SaverArguments, Serializable
    from asyncsaver.variables import Bound

    Definition = SaverDef | bytes | Serializable
    """What may define a saver."""

_HOURS = 10_000.0  # TensorFlow's default, by which none is kept for good; by 0 it keeps everything

# What these need is an extra: it is imported when it is asked for.


def check_definition(saver_def: Definition, import_scope: str | None = None) -> SaverDef:
    """A copy of a definition, checked; see `asyncsaver.tensorflow.definition.check_saver_def`."""
    from asyncsaver.tensorflow.definition import check_saver_def  # noqa: PLC0415 - as above

    return check_saver_def(saver_def, import_scope)


def overridden(definition: SaverDef) -> SaverArguments:
    """The arguments that a definition stands for."""
    from asyncsaver.tensorflow.definition import saver_arguments  # noqa: PLC0415 - as above

    return saver_arguments(definition)


def check_sidecar(meta: object, suffix: object) -> None:
    """Raise `TypeError` or `ValueError` for what cannot be written beside a checkpoint."""
    from asyncsaver.tensorflow.meta import check_meta_suffix  # noqa: PLC0415 - as above

    if not isinstance(meta, bytes):
        raise TypeError(f"write_meta must be bytes, not {type(meta).__name__}: saver.encode_meta() makes some")
    check_meta_suffix(suffix)


class Definitions:
    """What a `Saver` has of it."""

    _layout: Layout
    _guard: LoopGuard
    _config: SaverConfig
    _definition: SaverDef | None
    _bound: Bound | None

    if TYPE_CHECKING:

        def __init__(self, url: str | os.PathLike[str], **options: Any) -> None: ...

    def to_proto(self, export_scope: str | None = None) -> bytes | None:
        """The definition of this saver: the bytes of TensorFlow's ``SaverDef``.

        Args:
            export_scope: what is taken off the beginning of the names in it.

        Returns:
            The message; None where a name does not begin with that scope, or the saver has no variables (``allow_empty``).

        Raises:
            ValueError: ``max_to_keep`` is more than a definition can hold.
            ModuleNotFoundError: the extra "tensorflow" is missing.
        """
        from asyncsaver.tensorflow.definition import to_proto  # noqa: PLC0415 - as above

        return None if self._has_no_variables() else to_proto(self._defined(), export_scope)

    @classmethod
    def from_proto(
        cls, saver_def: Definition, url: str | os.PathLike[str], import_scope: str | None = None, **options: Any
    ) -> Self:
        """A saver as a definition says; see `to_proto`.

        Args:
            saver_def: the definition, which is not changed.
            url: the root.
            import_scope: what the names in it are to begin with besides.
            options: as the constructor's. The definition overrides those that it has.

        Raises:
            ValueError: it is no definition, or one that no saver can have.
            TypeError: an option is wrong.
        """
        return cls(url, **options, saver_def=check_definition(saver_def, import_scope))

    def encode_meta(
        self,
        program: bytes = b"",
        *,
        collections: Mapping[str, Values] | None = None,
        nodes: Mapping[str, Sequence[str]] | None = None,
        graph: bytes | None = None,
        export_scope: str | None = None,
    ) -> bytes:
        """A sidecar with the definition of this saver, as bytes: what `save` takes as ``write_meta``.

        Args and raises: as `asyncsaver.tensorflow.export_meta`.
        """
        from asyncsaver.formats.tensorflow.meta_graph import encode_meta  # noqa: PLC0415 - as above
        from asyncsaver.tensorflow.meta import make_meta  # noqa: PLC0415 - as above

        meta = make_meta(
            program,
            saver_def=None if self._has_no_variables() else self._defined(),
            collections=collections,
            nodes=nodes,
            graph=graph,
            export_scope=export_scope,
        )
        return encode_meta(meta)

    @guarded
    async def export_meta(self, path: str, program: bytes = b"", /, **contents: Any) -> None:
        """Write a sidecar with the definition of this saver, atomically; one that is there already is replaced.

        Args:
            path: where, relative to the root: ``meta_graph_filename`` of a checkpoint for one.
            program: what the tensors are for: an exported model, source code, any bytes.
            contents: as `encode_meta`.

        Raises:
            TypeError, ValueError: as `asyncsaver.tensorflow.export_meta`. Nothing was written.
            ReadOnlyError: the saver is read-only.
            StoreError: it could not be written.
        """
        self._check_writable()
        root = self._layout.root
        await root.store.put(path, await root.threads.run(lambda: self.encode_meta(program, **contents)))

    @classmethod
    async def import_meta(
        cls,
        meta_url: str | os.PathLike[str],
        url: str | os.PathLike[str] | None = None,
        import_scope: str | None = None,
        **options: Any,
    ) -> Self | None:
        """A saver as a sidecar says, ours or TensorFlow's. What else is in it, `asyncsaver.tensorflow.import_meta` gives.

        Args:
            meta_url: of the sidecar.
            url: the root; the folder of the sidecar by default.
            import_scope: what the names in the definition are to begin with besides.
            options: as the constructor's; the store's are also used to read the sidecar.

        Returns:
            The saver; None where there are no variables to restore.

        Raises:
            CheckpointNotFoundError: there is no such file.
            ManifestError: it is no sidecar, or damaged.
            StoreError: it could not be read.
        """
        from asyncsaver.tensorflow.meta import import_meta  # noqa: PLC0415 - as above
        from asyncsaver.tensorflow.paths import split_prefix  # noqa: PLC0415 - as above

        given = {name: options[name] for name in ("storage_options", "filesystem") if name in options}
        meta = await import_meta(meta_url, import_scope, **given)
        if not meta.has_variables:
            return None
        root = (split_prefix(meta_url)[0] or ".") if url is None else url
        return cls(root, **options) if meta.definition is None else cls.from_proto(meta.definition, root, **options)

    def as_default(self) -> AbstractContextManager[Self]:
        """Make this saver one that `asyncsaver.get_default_saver` gives, in the block and in tasks that are started there."""
        return as_default(self)

    def _check_writable(self) -> None:
        raise NotImplementedError

    def _has_no_variables(self) -> bool:
        return self._bound is not None and self._bound.empty

    def _defined(self) -> SaverDef:
        from asyncsaver.tensorflow.definition import make_saver_def  # noqa: PLC0415 - as above

        if self._definition is not None:
            return self._definition
        config = self._config
        return make_saver_def(
            max_to_keep=config.max_to_keep,
            keep_checkpoint_every_n_hours=config.keep_checkpoint_every_n_hours or _HOURS,
            write_version="v2" if config.tensorflow is None else config.tensorflow.write_version,
            sharded=config.tensorflow is not None and config.tensorflow.sharded,
            name=self._layout.root.label,
        )
