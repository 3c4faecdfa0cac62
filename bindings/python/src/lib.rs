//! toolB for Python.
