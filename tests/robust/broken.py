"""An application that does not import. It leaves a line each time somebody tries."""

from __future__ import annotations

import os
from pathlib import Path

if directory := os.environ.get("ROBUST_DIR"):
    with (Path(directory) / "events").open("a") as events:
        events.write("IMPORT\n")

raise ZeroDivisionError("this module is broken on purpose")
