use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const WINDOW: usize = 100;

/// Counts the letters that come.
#[derive(Default)]
struct Letters(AtomicUsize);

impl Desk for Letters {
    fn post(&self, _: Arc<Outbox>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Letters {
    fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

fn token() -> (Token, Arc<Outbox>, Arc<Letters>) {
    let letters = Arc::new(Letters::default());
    let desk: Arc<dyn Desk> = letters.clone();
    let outbox = Arc::new(Outbox::new(1, WINDOW, Some(desk), Draft::default()));
    (Token::new(outbox.clone()), outbox, letters)
}

#[test]
fn however_much_is_written_one_letter_is_on_its_way() {
    let (token, outbox, letters) = token();
    token.status(201).unwrap();
    for _ in 0..10 {
        token.write(b"0123456789").unwrap();
    }
    assert_eq!(letters.take(), 1);
    let news = outbox.take();
    assert_eq!(
        (news.first, news.whole, news.fate),
        (true, false, Fate::Open)
    );
    assert_eq!((news.draft.status, news.draft.body.len()), (201, WINDOW));
    assert_eq!(token.status(200), Err(WriteError::Begun));
    assert_eq!(token.field(b"a", b"b"), Err(WriteError::Begun));
    token.answer(b"the rest").unwrap();
    assert_eq!(letters.take(), 1);
    let news = outbox.take();
    assert_eq!((news.first, news.fate), (false, Fate::Ended));
    assert_eq!(news.draft.body, b"the rest");
}

#[test]
fn a_full_window_takes_nothing_until_half_of_it_has_left() {
    let (token, outbox, _) = token();
    let (calls, called) = std::sync::mpsc::channel();
    token.on_writable(move |_| calls.send(()).unwrap()).unwrap();
    token.write(&[0; 90]).unwrap();
    assert_eq!(token.write(&[0; 11]), Err(WriteError::Full));
    assert_eq!(outbox.take().draft.body.len(), 90);
    assert!(outbox.sent(39).is_none(), "more than half of it waits");
    let run = outbox.sent(40).unwrap();
    assert_eq!(called.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
    outbox.keep_on_writable(run);
    assert!(outbox.sent(41).is_none(), "once for each refusal");
    token.write(&[0; 11]).unwrap();
    // One that is larger than the window has to wait until nothing else waits.
    assert_eq!(token.write(&[0; 1000]), Err(WriteError::Full));
    assert!(outbox.sent(100).is_none());
    assert!(outbox.sent(101).is_some());
    token.write(&[0; 1000]).unwrap();
    assert_eq!(token.write(&[0]), Err(WriteError::Full));
    assert_eq!(token.wait_writable(Some(Duration::ZERO)), Ok(false));
    assert!(
        outbox.sent(1101).is_none(),
        "its function was never put back"
    );
    assert_eq!(token.wait_writable(None), Ok(true));
}

#[test]
fn a_cancel_tells_once_and_what_comes_later_is_refused() {
    let (token, outbox, letters) = token();
    token.on_cancel(|_| ()).unwrap();
    assert!(outbox.cancel().0.is_some());
    assert!(outbox.cancel().0.is_none());
    assert_eq!(token.on_cancel(|_| ()), Err(WriteError::Gone));
    assert_eq!(token.status(200), Err(WriteError::Gone));
    assert_eq!(token.write(b"late"), Err(WriteError::Gone));
    assert_eq!(token.wait_writable(None), Err(WriteError::Gone));
    assert_eq!(token.end(), Err(WriteError::Gone));
    assert_eq!(letters.take(), 0);
}

#[test]
fn an_ended_token_is_not_told_of_a_cancel() {
    for abort in [false, true] {
        let (token, outbox, _) = token();
        token.on_cancel(|_| ()).unwrap();
        match abort {
            true => drop(token),
            false => token.end().unwrap(),
        }
        assert!(outbox.cancel().0.is_none());
    }
}

#[test]
fn end_and_cancel_race_and_one_of_them_wins() {
    for _ in 0..1000 {
        let (token, outbox, _) = token();
        token.on_cancel(|_| ()).unwrap();
        let racer = std::thread::spawn(move || token.answer(b"x").is_ok());
        let told = outbox.cancel().0.is_some();
        assert!(racer.join().unwrap() != told);
    }
}

#[test]
fn whoever_waits_is_woken_by_room_and_by_a_cancel() {
    for cancel in [false, true] {
        let (token, outbox, _) = token();
        token.write(&[0; WINDOW]).unwrap();
        assert_eq!(token.write(b"more"), Err(WriteError::Full));
        let waiter = std::thread::spawn(move || token.wait_writable(None));
        let expected = match cancel {
            true => {
                outbox.cancel();
                Err(WriteError::Gone)
            }
            false => {
                outbox.sent(WINDOW as u64);
                Ok(true)
            }
        };
        assert_eq!(waiter.join().unwrap(), expected);
    }
}
