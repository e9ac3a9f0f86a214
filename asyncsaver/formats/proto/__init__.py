"""Manifests, parts and the state file in protobuf: the model of the JSON, in `asyncsaver/proto/manifest.proto`."""

try:
    from asyncsaver.formats.proto.documents import decode_manifest, decode_part, decode_state, encode
except ModuleNotFoundError as error:
    if not (error.name or "").startswith("google"):
        raise
    raise ModuleNotFoundError(
        'manifests in protobuf need the package protobuf: pip install "asyncsaver[proto]"', name=error.name
    ) from error

__all__ = ["decode_manifest", "decode_part", "decode_state", "encode"]
