"""toolB: an application server with a native engine.

``toolb run MODULE:ATTR`` serves an ASGI application; ``toolb run --help`` explains.
"""

from __future__ import annotations

from importlib.metadata import version as _version

__all__ = ["ClientDisconnected", "__version__"]

__version__ = _version("toolb")


class ClientDisconnected(OSError):
    """Raised by ``send`` when the client has gone: nobody reads the response any more."""

    def __init__(self) -> None:
        super().__init__("the client has disconnected")
