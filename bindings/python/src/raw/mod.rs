//! The module's unsafe code.

use std::ops::Deref;

/// State of a Python object, which is reached only with the GIL held.
///
/// The module declares that it uses the GIL, and none of these objects is used by Rust threads that
/// do not hold it, so that cells need no lock of their own.
#[derive(Default)]
pub(crate) struct UnderGil<T>(T);

// SAFETY: whoever holds a reference got it from a method of a Python class or from a bound object,
// hence holds the GIL, which one thread holds at a time.
unsafe impl<T: Send> Sync for UnderGil<T> {}

impl<T> UnderGil<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for UnderGil<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}
