"""What all Python tests share."""

import signal

# Who starts a run in the background may have it ignore SIGINT, and every program under test with it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
