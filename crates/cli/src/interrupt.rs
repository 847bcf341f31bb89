use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

static STOP: AtomicBool = AtomicBool::new(false);
static HANDLER: OnceLock<()> = OnceLock::new();

/// Set when the user asks to stop: once for a partial result, twice to leave at once.
pub(crate) fn stop_flag() -> &'static AtomicBool {
    HANDLER.get_or_init(|| {
        // Without a handler an interrupt ends the program at once, which is what it would do anyway.
        let _ = ctrlc::set_handler(|| {
            if STOP.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        });
    });
    &STOP
}
