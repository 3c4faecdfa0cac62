"""toolB: an application server whose native engine owns the connections."""

from ._toolb import ClientDisconnected, __version__

__all__ = ["ClientDisconnected", "__version__"]
