//! Named points at which a process can be made to die, so that tests see what its death leaves behind.
//! Without the feature `crash-points`, which only such a test builds with, a point is nothing at all.

/// A place where this process may be told to fall: `TOOLB_CRASH=NAME:COUNT:HOW` has it fall the
/// `COUNT`th time it comes by the point `NAME`. `HOW` is `kill` (SIGKILL), `stop` (SIGSTOP: it goes on
/// after SIGCONT) or `fork` (a child stays behind with all descriptors, and the process exits).
#[inline(always)]
pub fn point(name: &'static str) {
    #[cfg(feature = "crash-points")]
    armed::point(name);
    #[cfg(not(feature = "crash-points"))]
    let _ = name;
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::env;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    const VARIABLE: &str = "TOOLB_CRASH";

    struct Plan {
        name: String,
        left: AtomicU32,
        how: How,
    }

    enum How {
        Fork,
        Kill,
        Stop,
    }

    pub(super) fn point(name: &str) {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        let plan = PLAN.get_or_init(|| env::var(VARIABLE).ok().map(|text| Plan::parse(&text)));
        if let Some(plan) = plan
            && plan.name == name
            && plan.left.fetch_sub(1, Ordering::Relaxed) == 1
        {
            plan.fall();
        }
    }

    impl Plan {
        /// # Panics
        /// If the plan makes no sense: a test that is wrong is not to pass.
        fn parse(text: &str) -> Self {
            let [name, count, how] = text.split(':').collect::<Vec<_>>()[..] else {
                panic!("{VARIABLE}={text} is not NAME:COUNT:HOW");
            };
            let count = count.parse().unwrap_or(0);
            assert!(
                count > 0,
                "{VARIABLE}={text}: the count is a number above 0"
            );
            Self {
                name: name.to_owned(),
                left: AtomicU32::new(count),
                how: match how {
                    "fork" => How::Fork,
                    "kill" => How::Kill,
                    "stop" => How::Stop,
                    _ => panic!("{VARIABLE}={text}: one falls by fork, kill or stop"),
                },
            }
        }

        fn fall(&self) {
            match self.how {
                How::Kill => raise(libc::SIGKILL),
                How::Stop => raise(libc::SIGSTOP),
                How::Fork => fork_and_exit(),
            }
        }
    }

    /// Sends a signal to this very thread, which so does not get a single step further.
    fn raise(signal: i32) {
        // SAFETY: no pointers; both signals have no handler.
        unsafe { libc::raise(signal) };
    }

    fn fork_and_exit() {
        // SAFETY: the child makes only calls that are safe after a fork with several threads.
        match unsafe { libc::fork() } {
            0 => loop {
                // SAFETY: no pointers.
                unsafe { libc::pause() };
            },
            // SAFETY: no pointers. Nothing is run at this exit, as at that of a process that died.
            _ => unsafe { libc::_exit(0) },
        }
    }
}
