//! The request line: method, target and version.
#![forbid(unsafe_code)]

use crate::config::Limits;

use super::super::syntax::{is_authority, is_token_byte};
use super::{Head, Reject, Span, Version};

impl Head {
    /// Parses the request line; returns the offset of what follows it.
    pub(super) fn parse_line(
        &mut self,
        buf: &[u8],
        start: usize,
        limits: &Limits,
    ) -> Result<Option<usize>, Reject> {
        // Nothing past the limit is looked at: if no line end comes before it, none is in time.
        let most = limits.request_line.saturating_add(start + 2);
        let line = &buf[..buf.len().min(most)];
        let needs_more = || match line.len() == most {
            true => Err(Reject::new(414, "the request line is too long")),
            false => Ok(None),
        };

        let mut at = start;
        loop {
            match line.get(at) {
                Some(&byte) if is_token_byte(byte) => at += 1,
                Some(b' ') if at > start => break,
                Some(_) => return Err(Reject::new(400, "the method is malformed")),
                None => return needs_more(),
            }
        }
        self.method = Span::new(start, at);

        let target_start = at + 1;
        let (mut query, mut escape) = (None, None);
        at = target_start;
        loop {
            // A loop of its own for the many bytes that mean nothing.
            let rest = line.get(at..).unwrap_or_default();
            let plain = |&byte: &u8| matches!(TARGET[byte as usize], TargetByte::Plain);
            let Some(skip) = rest.iter().position(|byte| !plain(byte)) else {
                return needs_more();
            };
            at += skip;
            match TARGET[line[at] as usize] {
                TargetByte::Question => query = query.or(Some(at)),
                TargetByte::Escape => escape = escape.or(Some(at)),
                TargetByte::Space if at > target_start => break,
                _ => return Err(Reject::new(400, "the request target is malformed")),
            }
            at += 1;
        }
        let path_end = query.unwrap_or(at);
        self.target = Span::new(target_start, at);
        self.query = Span::new((path_end + 1).min(at), at);

        let Some((version, end)) = parse_version(line, at + 1)? else {
            return needs_more();
        };
        self.version = version;

        if buf[target_start] == b'/' {
            self.raw_path = Span::new(target_start, path_end);
            self.has_escape = escape.is_some_and(|at| at < path_end);
        } else {
            self.parse_other_target(buf, path_end)?;
        }
        // The target form is judged first, so that CONNECT is told what it is told.
        if self.method.of(buf) == b"CONNECT" {
            return Err(connect());
        }
        Ok(Some(end))
    }

    /// A target that is not simply a path: asterisk-form, absolute-form, authority-form.
    #[cold]
    fn parse_other_target(&mut self, buf: &[u8], path_end: usize) -> Result<(), Reject> {
        let target = self.target.of(buf);
        let method = self.method.of(buf);
        if method == b"CONNECT" {
            return Err(connect());
        }
        if target == b"*" {
            if method != b"OPTIONS" {
                return Err(Reject::new(400, "the target * is for OPTIONS only"));
            }
            self.raw_path = self.target;
            return Ok(());
        }
        let scheme = ["http://", "https://"].into_iter().find(|scheme| {
            target
                .get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
        });
        let Some(scheme) = scheme else {
            return Err(Reject::new(400, "the request target is malformed"));
        };
        let authority_start = self.target.start as usize + scheme.len();
        let before_query = &buf[authority_start..path_end];
        let slash = before_query.iter().position(|&byte| byte == b'/');
        let authority_end = slash.map_or(path_end, |at| authority_start + at);
        self.authority = Span::new(authority_start, authority_end);
        if !is_authority(self.authority.of(buf)) {
            return Err(Reject::new(
                400,
                "the host in the request target is malformed",
            ));
        }
        self.raw_path = match slash {
            Some(_) => Span::new(authority_end, path_end),
            // The path is empty, which means "/": the last byte of the scheme is one.
            None => Span::new(authority_start - 1, authority_start),
        };
        self.has_escape = self.raw_path.of(buf).contains(&b'%');
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum TargetByte {
    Plain,
    Question,
    Escape,
    Space,
    /// Controls, and `#`: fragments are not sent.
    Bad,
}

static TARGET: [TargetByte; 256] = {
    let mut table = [TargetByte::Plain; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = TargetByte::Bad;
        byte += 1;
    }
    table[0x7f] = TargetByte::Bad;
    table[b'#' as usize] = TargetByte::Bad;
    table[b' ' as usize] = TargetByte::Space;
    table[b'?' as usize] = TargetByte::Question;
    table[b'%' as usize] = TargetByte::Escape;
    table
};

/// Parses the version at `at` and the line end after it; returns where the next line begins.
fn parse_version(line: &[u8], at: usize) -> Result<Option<(Version, usize)>, Reject> {
    let rest = line.get(at..).unwrap_or_default();
    if rest.starts_with(b"HTTP/1.1\r\n") {
        return Ok(Some((Version::Http11, at + 10)));
    }
    if rest.starts_with(b"HTTP/1.0\r\n") {
        return Ok(Some((Version::Http10, at + 10)));
    }
    let shape = b"HTTP/d.d\r\n";
    let fits = rest.iter().zip(shape).all(|(&byte, &wanted)| match wanted {
        b'd' => byte.is_ascii_digit(),
        _ => byte == wanted,
    });
    if !fits {
        return Err(Reject::new(400, "the request line is malformed"));
    }
    if rest.len() < shape.len() {
        return Ok(None);
    }
    Err(Reject::new(
        505,
        "the versions known are HTTP/1.0 and HTTP/1.1",
    ))
}

/// 501, not 405: tunnels are not implemented whatever the target, and 405 would have to name the
/// methods that the target does allow, while an authority is no resource of ours.
#[cold]
fn connect() -> Reject {
    Reject::new(501, "CONNECT is for proxies, and this is none")
}
