"""Black-box tests of `toolb run`: what it must stand, over real sockets and with real processes."""
