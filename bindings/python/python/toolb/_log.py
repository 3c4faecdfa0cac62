"""What this package logs."""

import logging
import sys
from datetime import datetime


def to_stderr(level: str) -> None:
    """Sends it to stderr, whatever the application does with logging."""
    handler = logging.StreamHandler(sys.stderr)
    # As the engine has it: the time in front unless a person reads it at a terminal.
    stamp = "" if sys.stderr.isatty() else "%(asctime)s "
    handler.setFormatter(_Formatter(stamp + "[%(process)d] %(levelname)s %(message)s"))
    package = logging.getLogger("toolb")
    package.addHandler(handler)
    package.propagate = False
    package.setLevel({"trace": logging.DEBUG}.get(level, level.upper()))
    logging.getLogger("toolb.error").__class__ = _Logger


class _Logger(logging.Logger):
    """Is heard whatever an application configures.

    `logging.config` disables all loggers that there are, unless it is told not to: nobody would hear
    of the application's errors.
    """

    @property
    def disabled(self) -> bool:
        return False

    @disabled.setter
    def disabled(self, _: bool) -> None:
        pass


class _Formatter(logging.Formatter):
    """With times of RFC 3339."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        time = datetime.fromtimestamp(record.created).astimezone()
        return time.isoformat(timespec="milliseconds")
