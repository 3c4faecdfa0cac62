#!/bin/sh
# Stands in for a Python: turns `-m toolb.worker TARGET ...` into a call of the test `worker` in the
# program that runs the tests. Nobody writes it while tests run, or it could not be run just then.
TEST_TARGET="$3" exec "$TEST_PROGRAM" worker --exact --nocapture
