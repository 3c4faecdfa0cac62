//! Chunked bodies: no panic, and the same body and end however the input is split.
//!
//! The first byte chooses the limit, the second the size of the pieces; the rest is the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use toolb_core::http::{BodyFraming, BodyReader, Reject};

fuzz_target!(|data: &[u8]| {
    let [limit, piece, input @ ..] = data else {
        return;
    };
    let limit = u64::from(*limit % 64);
    let whole = read(input, limit, input.len().max(1), usize::MAX);
    let split = read(
        input,
        limit,
        usize::from(*piece % 16) + 1,
        usize::from(*piece / 16) + 1,
    );
    assert_eq!(whole, split);
    assert!(limit == 0 || whole.0.len() as u64 <= limit);
});

/// The body, and where it ended (`None`: not yet) or why it was refused.
type Outcome = (Vec<u8>, Result<Option<usize>, Reject>);

fn read(input: &[u8], limit: u64, piece: usize, most: usize) -> Outcome {
    let mut reader = BodyReader::new(BodyFraming::Chunked, limit);
    let (mut body, mut at, mut have) = (Vec::new(), 0, 0);
    loop {
        let step = match reader.next_up_to(&input[at..have], most) {
            Err(reject) => return (body, Err(reject)),
            Ok(step) => step,
        };
        assert!(step.data.len() <= most && step.data.end <= step.consumed);
        assert!(at + step.consumed <= have);
        assert_eq!(step.is_end, reader.is_done());
        body.extend_from_slice(&input[at..][step.data.clone()]);
        at += step.consumed;
        if step.is_end {
            return (body, Ok(Some(at)));
        }
        if step.needs_more() {
            assert_eq!(
                at, have,
                "all of the input is taken before more is asked for"
            );
            if have == input.len() {
                return (body, Ok(None));
            }
            have = (have + piece).min(input.len());
        }
    }
}
