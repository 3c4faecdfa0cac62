//! Reading from clients, into memory that the loop lends, so that a connection that waits holds only
//! what it must.

use std::io;

use super::conn::{Conn, Phase};
use super::event_loop::{Loop, READ_BUFFER};

/// Nothing is read into less room than this.
const LEAST_ROOM: usize = 4096;

impl Loop {
    /// Reads once. False: nothing came, now or ever; the connection may be gone.
    pub(super) fn fill(&mut self, key: u64, budget: &mut usize) -> bool {
        let Some(conn) = self.conns.get_mut(key) else {
            return false;
        };
        if !conn.can_read {
            return false;
        }
        conn.make_room(&mut self.read_buffer);
        let room = conn.input.capacity() - conn.input.len();
        match conn.socket.recv(&mut conn.input) {
            Ok(0) => {
                self.end_of_input(key);
                false
            }
            Ok(count) => {
                // A short read has emptied the socket: the next byte will be a new edge. Behind a
                // hang-up there is no next edge, so its end of stream must be read for.
                conn.can_read = count == room || conn.hung_up;
                if conn.phase == Phase::Head && conn.input.len() == count && !conn.drop_line_end() {
                    conn.since = self.now;
                }
                conn.moved = self.now;
                *budget = budget.saturating_sub(count);
                self.stats().bytes_in.add(count as u64);
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                conn.can_read = false;
                false
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(_) => {
                self.drop_conn(key);
                false
            }
        }
    }

    /// The client has ended its side.
    fn end_of_input(&mut self, key: u64) {
        let Some(conn) = self.conns.get_mut(key) else {
            return;
        };
        conn.can_read = false;
        match conn.phase {
            Phase::Body if conn.raw => conn.raw_ended = true,
            // What was answered already may still be on its way out.
            Phase::Head | Phase::Discard if conn.unsent() > 0 => {
                conn.enter(Phase::Closing, self.now)
            }
            Phase::Closing => {}
            // Whoever ends its side before the answer has come has left: a client that went away
            // looks the same, and work for it must stop.
            _ => self.drop_conn(key),
        }
    }
}

impl Conn {
    /// Makes room to read, in the buffer that the loop has to lend if that suffices.
    fn make_room(&mut self, lent: &mut Vec<u8>) {
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
