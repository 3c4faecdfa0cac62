"""What this package logs."""

import logging
import os
import select
from datetime import datetime

STDERR = 2

WHOLE = 4096
"""So many bytes are written to a pipe as a whole, and fit if it takes any at all (pipe(7))."""


def to_stderr(level: str) -> None:
    """Sends it to stderr, whatever the application does with logging."""
    handler = _Handler()
    # As the engine has it: the time in front unless a person reads it at a terminal.
    stamp = "" if os.isatty(STDERR) else "%(asctime)s "
    handler.setFormatter(_Formatter(stamp + "[%(process)d] %(levelname)s %(message)s"))
    package = logging.getLogger("toolb")
    package.addHandler(handler)
    package.propagate = False
    package.setLevel({"trace": logging.DEBUG}.get(level, level.upper()))
    logging.getLogger("toolb.error").__class__ = _Logger


class _Handler(logging.Handler):
    """Writes what standard error takes at once.

    A log that nobody reads holds no request up: what there is no room for is left out and counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self._missed = 0
        self._poll = select.poll()
        self._poll.register(STDERR, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record, after a word on those before that are not there."""
        try:
            text = self.format(record)
            if self._missed and self._put(self._note(record)):
                self._missed = 0
            if self._missed or not self._put(text):
                self._missed += 1
        except Exception:
            self.handleError(record)

    def _note(self, record: logging.LogRecord) -> str:
        text = (
            f"{self._missed} lines of the log were left out, as nobody read it or there was no room"
        )
        level = logging.WARNING
        return self.format(logging.LogRecord(record.name, level, "", 0, text, None, None))

    def _put(self, text: str) -> bool:
        data = f"{text}\n".encode(errors="backslashreplace")
        for start in range(0, len(data), WHOLE):
            part = data[start : start + WHOLE]
            events = self._poll.poll(0)
            if not events or events[0][1] & (select.POLLERR | select.POLLNVAL):
                return False
            try:
                if os.write(STDERR, part) < len(part):
                    return False
            except OSError:
                return False
        return True


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
