//! The log, for application code that has failed.

use std::ffi::c_char;
use std::fmt::{self, Write};

use toolb_core::engine::log_error;

use crate::guard::{entry, text_bytes};
use crate::toolb_status;

/// Writes a line to the log of this process, as the library writes its own errors: to standard error,
/// "toolb error: " and `text`, without ever waiting for whoever reads it. What would not fit one line is
/// escaped. Any thread.
///
/// # Safety
/// `text` is NUL-terminated or NULL, which is answered by TOOLB_NULL_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn toolb_log_error(text: *const c_char) -> toolb_status {
    entry(|| {
        // SAFETY: the caller's promise.
        let text = String::from_utf8_lossy(unsafe { text_bytes(text)? });
        log_error(format_args!("{}", OneLine(&text)));
        Ok(())
    })
}

/// A text without line ends and other controls.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c.is_control() {
            true => write!(f, "{}", c.escape_default()),
            false => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_do_not_end_a_line() {
        let shown = OneLine("é \"a\"\r\nb\u{1b}[1m\u{85}").to_string();
        assert_eq!(shown, "é \"a\"\\r\\nb\\u{1b}[1m\\u{85}");
    }
}
