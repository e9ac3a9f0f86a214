"""The version of this software, as installed."""

from importlib.metadata import version

__version__ = version("asyncsaver")
WRITER = f"asyncsaver {__version__}"
"""What manifests say wrote them."""
