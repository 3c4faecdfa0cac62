"""The command ``toolb``: the native program, told which Python its workers run."""

from __future__ import annotations

import sys
from typing import NoReturn

from toolb import _toolb


def main() -> NoReturn:
    """Run the command line and exit."""
    sys.exit(_toolb.run_cli(["toolb", *sys.argv[1:]], sys.executable))
