//! Floor 0: the only module that makes system calls.
