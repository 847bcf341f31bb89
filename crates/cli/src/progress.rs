use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// One line on a terminal's standard error that says how far a long command is; nothing anywhere
/// else.
pub(crate) struct Progress {
    shown: bool,
    state: Mutex<State>,
}

struct State {
    started: Instant,
    last: Option<Instant>,
}

impl Progress {
    #[allow(clippy::disallowed_methods)] // The command line is where clocks are read.
    pub(crate) fn new() -> Self {
        let state = State { started: Instant::now(), last: None };
        Progress { shown: std::io::stderr().is_terminal(), state: Mutex::new(state) }
    }

    /// Shows a share from 0 to 1 and what is being done.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn show(&self, share: f64, what: &str) {
        if !self.shown {
            return;
        }
        let Ok(mut state) = self.state.lock() else { return };
        let now = Instant::now();
        if state.last.is_some_and(|last| now - last < Duration::from_millis(100)) && share < 1.0 {
            return;
        }
        state.last = Some(now);
        let seconds = (now - state.started).as_secs();
        let filled = (share.clamp(0.0, 1.0) * 24.0).round() as usize;
        let bar: String = (0..24).map(|i| if i < filled { '#' } else { '-' }).collect();
        let what: String = what.chars().take(36).collect();
        let _ =
            write!(std::io::stderr(), "\r\x1b[K[{bar}] {:>3.0}%  {seconds} s  {what}", share.clamp(0.0, 1.0) * 100.0);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
