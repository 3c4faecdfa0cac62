//! libtoolb: the C ABI of toolB.
