"""`python -m toolb` is the `toolb` program."""

import sys

from ._cli import main

sys.exit(main())
