//! What every entry point does first: check pointers, and keep panics from crossing into C.

use std::any::{Any, type_name};
use std::ffi::{CStr, c_char, c_void};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::last_error::{fail, settle};
use crate::toolb_status;

/// Runs an entry point. What it fails with is what toolb_last_error tells of; a panic becomes a
/// status.
pub(crate) fn entry<F: FnOnce() -> Result<(), toolb_status>>(body: F) -> toolb_status {
    let status = quiet(body);
    if status != toolb_status::TOOLB_OK {
        settle(status, type_name::<F>());
    }
    status
}

/// The same, for one whose failures leave the text of toolb_last_error as it is.
pub(crate) fn quiet(body: impl FnOnce() -> Result<(), toolb_status>) -> toolb_status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => toolb_status::TOOLB_OK,
        Ok(Err(status)) => status,
        Err(panic) => fail(toolb_status::TOOLB_PANIC, panic_text(&*panic)),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic that gave no text")
}

/// The object behind a pointer.
///
/// # Safety
/// If not NULL, `pointer` points to a live `T` that nobody changes meanwhile.
pub(crate) unsafe fn object<'a, T>(pointer: *const T) -> Result<&'a T, toolb_status> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)
}

/// The place behind a pointer, to be written to.
///
/// # Safety
/// If not NULL, `pointer` points to a `T` that nobody else uses meanwhile.
pub(crate) unsafe fn place<'a, T>(pointer: *mut T) -> Result<&'a mut T, toolb_status> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or(toolb_status::TOOLB_NULL_ARGUMENT)
}

/// Stores a result where the caller wants it, if anywhere.
///
/// # Safety
/// If not NULL, `pointer` may be written.
pub(crate) unsafe fn store<T>(pointer: *mut T, value: T) {
    // SAFETY: the caller's promise.
    if let Some(place) = unsafe { pointer.as_mut() } {
        *place = value;
    }
}

/// Asserts that a struct of the caller has its last field at its very end. What is behind it, as the
/// size of a struct is a multiple of its alignment, would become a field's in the next version, and
/// both versions would say that they have the same size. A struct that does not end so gets a field
/// more, or one that is `reserved`.
macro_rules! ends_whole {
    ($sized:ident, $last:ident: $kind:ty) => {
        const _: () = assert!(
            std::mem::offset_of!($sized, $last) + size_of::<$kind>() == size_of::<$sized>(),
            concat!(stringify!($sized), " does not end with its last field"),
        );
    };
}
pub(crate) use ends_whole;

/// The struct behind a pointer, which begins with its size: as much of it as the caller knows, zero
/// for the rest. NULL is answered by `None`.
///
/// # Safety
/// If not NULL, `pointer` points to a `T` that begins with a `usize` and has at least as many bytes
/// as that says. All-zero is a value of `T`, and so is every value of a shorter version with zeros
/// behind it.
pub(crate) unsafe fn sized<T: Copy>(
    pointer: *const T,
    first_version: usize,
) -> Result<Option<T>, toolb_status> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    let size = unsafe { told_size(pointer, first_version)? };
    let mut value = MaybeUninit::<T>::zeroed();
    let known = size.min(size_of::<T>());
    // SAFETY: the caller's promise: so many bytes are there, and with zeros behind them they are a
    // value.
    Ok(Some(unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast(), known);
        value.assume_init()
    }))
}

/// Fills a struct of the caller that begins with its size, as far as the caller knows it.
///
/// # Safety
/// If not NULL, `pointer` points to a `T` that begins with a `usize`, has at least as many bytes as
/// that says, and may be written.
pub(crate) unsafe fn fill<T: Copy>(
    pointer: *mut T,
    first_version: usize,
    value: &T,
) -> Result<(), toolb_status> {
    // SAFETY: the caller's promise.
    let size = unsafe { told_size(pointer, first_version)? };
    let known = size.min(size_of::<T>()) - size_of::<usize>();
    // SAFETY: the caller's promise. The size at the beginning stays the caller's.
    unsafe {
        let from = std::ptr::from_ref(value).cast::<usize>().add(1);
        let to = pointer.cast::<usize>().add(1);
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), to.cast(), known);
    }
    Ok(())
}

/// The size that a struct of the caller says it has, if it is one that [`fill`] and [`sized`] take.
///
/// # Safety
/// If not NULL, `pointer` points to a `usize` at the beginning of a struct.
pub(crate) unsafe fn told_size<T>(
    pointer: *const T,
    first_version: usize,
) -> Result<usize, toolb_status> {
    // SAFETY: the caller's promise; only the size is read before it is known.
    let size = *unsafe { object(pointer.cast::<usize>())? };
    match size < first_version {
        true => Err(toolb_status::TOOLB_BAD_STRUCT_SIZE),
        false => Ok(size),
    }
}

/// The text behind a pointer.
///
/// # Safety
/// If not NULL, `pointer` points to a NUL-terminated string that nobody changes meanwhile.
pub(crate) unsafe fn text<'a>(pointer: *const c_char) -> Result<&'a str, toolb_status> {
    // SAFETY: the caller's promise.
    let text = unsafe { text_bytes(pointer)? };
    std::str::from_utf8(text).map_err(|_| toolb_status::TOOLB_NOT_UTF8)
}

/// The bytes of the text behind a pointer, whatever its encoding.
///
/// # Safety
/// If not NULL, `pointer` points to a NUL-terminated string that nobody changes meanwhile.
pub(crate) unsafe fn text_bytes<'a>(pointer: *const c_char) -> Result<&'a [u8], toolb_status> {
    if pointer.is_null() {
        return Err(toolb_status::TOOLB_NULL_ARGUMENT);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// The bytes behind a pointer; NULL is allowed for none.
///
/// # Safety
/// `pointer` points to `len` bytes that nobody changes meanwhile, or `len` is 0.
pub(crate) unsafe fn bytes<'a>(
    pointer: *const c_void,
    len: usize,
) -> Result<&'a [u8], toolb_status> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(toolb_status::TOOLB_NULL_ARGUMENT);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), len) })
}

/// Copies `text` and a NUL to `buffer`; `needed`, if not NULL, gets the size with the NUL.
///
/// # Safety
/// `buffer` has room for `capacity` bytes, or `capacity` is 0; `needed` may be written if not NULL.
pub(crate) unsafe fn put_text(
    text: &str,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> Result<(), toolb_status> {
    // SAFETY: the caller's promise.
    unsafe { store(needed, text.len() + 1) };
    if capacity < text.len() + 1 {
        return Err(toolb_status::TOOLB_BUFFER_TOO_SMALL);
    }
    if buffer.is_null() {
        return Err(toolb_status::TOOLB_NULL_ARGUMENT);
    }
    // SAFETY: the buffer has room, and a text of ours does not lie in it.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolb_last_error;

    #[test]
    fn the_text_of_a_panic_is_that_of_the_last_error() {
        let mut buffer = [0_u8; 64];
        for panic in [
            || panic!("a defect that was known"),
            || panic!("a defect that was {}", "known"),
        ] {
            assert_eq!(entry(panic), toolb_status::TOOLB_PANIC);
            // SAFETY: the buffer is as long as it says.
            let status = unsafe {
                toolb_last_error(
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    std::ptr::null_mut(),
                )
            };
            assert_eq!(status, toolb_status::TOOLB_OK);
            assert!(buffer.starts_with(b"a defect that was known\0"));
            buffer.fill(0);
        }
    }
}
