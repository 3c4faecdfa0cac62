//! Loops that sleep while a request waits learn of starts.

use std::array;

use shuttle::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Loops as far as they hear of starts.
struct Ears {
    pool: Pool,
    /// A letter has come since the loop last looked: it will look again.
    letters: [AtomicBool; 3],
}

impl Ears {
    fn call_others(&self, own: usize) {
        for (index, letter) in self.letters.iter().enumerate() {
            if index != own {
                letter.store(true, Ordering::SeqCst);
            }
        }
    }

    /// What a loop decides before it sleeps.
    fn look(&self, own: usize) -> bool {
        self.letters[own].store(false, Ordering::SeqCst);
        self.pool.wants_starts(|| self.call_others(own))
    }
}

/// While one loop queues, others find that nobody waits any more.
#[test]
fn a_start_is_heard_of_by_every_loop_while_somebody_waits() {
    check(|| {
        let ears = Arc::new(Ears {
            pool: Pool::new(PoolLimits {
                queue_size: 1,
                limit_concurrency: None,
            }),
            letters: array::from_fn(|_| AtomicBool::new(false)),
        });
        // Somebody waited, and has left.
        ears.pool.ask_for_starts(|| ());
        let others: Vec<_> = (1..3)
            .map(|own| {
                let ears = Arc::clone(&ears);
                thread::spawn(move || (own, ears.look(own)))
            })
            .collect();
        assert!(matches!(
            ears.pool.admit(Work::Request, 0, 0),
            Admission::Queued(_)
        ));
        ears.pool.ask_for_starts(|| ears.call_others(0));
        // Letters are on their way until all have looked.
        let looked: Vec<_> = others.into_iter().map(|one| one.join().unwrap()).collect();
        for (own, hears) in looked {
            assert!(
                hears || ears.letters[own].load(Ordering::SeqCst),
                "stranded: a loop sleeps and does not hear of starts"
            );
        }
    });
}
