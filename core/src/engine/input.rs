//! The memory that input is read into: lent by the loop, so that a connection that waits holds only
//! what it must.

use super::conn::Conn;
use super::event_loop::READ_BUFFER;

/// Nothing is read into less room than this.
const LEAST_ROOM: usize = 4096;

impl Conn {
    /// Makes room to read, in the buffer that the loop has to lend if that suffices.
    pub(super) fn make_room(&mut self, lent: &mut Vec<u8>) {
        let unread = self.unread().len();
        if self.input.capacity() - unread < LEAST_ROOM && lent.capacity() >= unread + LEAST_ROOM {
            lent.extend_from_slice(self.unread());
            self.input = std::mem::take(lent);
            self.consumed = 0;
            return;
        }
        if self.consumed > 0 {
            self.input.drain(..self.consumed);
            self.consumed = 0;
        }
        if self.input.capacity() - unread < LEAST_ROOM {
            self.input.reserve(READ_BUFFER);
        }
    }

    /// Drops the line end that some clients send after a body: it begins no request. True: that was
    /// all there was, so the connection is as idle as before.
    pub(super) fn drop_line_end(&mut self) -> bool {
        let is_extra = self.served && self.unread().starts_with(b"\r\n");
        if is_extra {
            self.consumed += 2;
        }
        is_extra && self.unread().is_empty()
    }

    /// Gives the loop its buffer back, and keeps what has not been used in one that fits it.
    pub(super) fn stow(&mut self, lent: &mut Vec<u8>) {
        if self.input.capacity() == 0 {
            return;
        }
        let fits = self.consumed == 0 && self.input.len() >= self.input.capacity() / 2;
        let may_stay = lent.capacity() >= READ_BUFFER || self.input.capacity() < READ_BUFFER;
        if fits && may_stay && !self.input.is_empty() {
            return;
        }
        let rest = self.unread().to_vec();
        let mut buffer = std::mem::replace(&mut self.input, rest);
        self.consumed = 0;
        if lent.capacity() == 0 {
            buffer.clear();
            *lent = buffer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_in_pieces_holds_little_more_than_itself() {
        let mut conn = Conn::of_test();
        let mut lent = Vec::with_capacity(READ_BUFFER);
        let pieces = [
            b"GET / HT",
            b"TP/1.1\r\n",
            b"host: x\r",
            b"\nx: yzzz",
            b"zz\r\n\r\n..",
        ];
        let mut whole = Vec::new();
        for piece in pieces {
            conn.make_room(&mut lent);
            assert!(conn.input.capacity() - conn.input.len() >= LEAST_ROOM);
            conn.input.extend_from_slice(piece);
            whole.extend_from_slice(piece);
            assert_eq!(conn.unread(), whole);
            conn.stow(&mut lent);
            assert_eq!(conn.unread(), whole);
            assert!(conn.input.capacity() < 100);
            assert!(lent.is_empty() && lent.capacity() >= READ_BUFFER);
        }
        conn.consumed = whole.len() - 2;
        conn.stow(&mut lent);
        assert_eq!((conn.unread(), conn.consumed), (&b".."[..], 0));
        conn.consumed = 2;
        conn.stow(&mut lent);
        assert_eq!(conn.input.capacity(), 0);
    }

    #[test]
    fn a_buffer_full_of_input_stays_where_it_is_unless_the_loop_has_none() {
        let mut conn = Conn::of_test();
        let mut lent = Vec::with_capacity(READ_BUFFER);
        conn.make_room(&mut lent);
        conn.input.resize(READ_BUFFER - 1, b'x');
        assert_eq!(lent.capacity(), 0);
        conn.stow(&mut lent);
        assert!(lent.capacity() >= READ_BUFFER && lent.is_empty());
        assert_eq!(conn.unread().len(), READ_BUFFER - 1);
        let before = conn.input.as_ptr();
        conn.stow(&mut lent);
        assert_eq!(conn.input.as_ptr(), before);
        conn.make_room(&mut lent);
        assert!(conn.input.capacity() - conn.input.len() >= LEAST_ROOM);
        assert_eq!(conn.unread().len(), READ_BUFFER - 1);
    }
}
