"""``python -m toolb`` is the command ``toolb``."""

from toolb._cli import main

main()
