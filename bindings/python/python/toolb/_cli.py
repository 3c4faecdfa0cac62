"""The `toolb` program. The native engine does all the work; its workers are this interpreter."""

import sys

from . import _toolb


def main() -> int:
    """Runs `toolb` with the arguments of this process and returns its exit code."""
    return _toolb.run_cli(sys.argv, sys.executable)
