//! What this crate's tests start in `plimsoll keep`'s place, which does the same.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let error = match arguments.next().as_deref() {
        Some("run") => match arguments.next() {
            Some(base) => match plimsoll_lab::process::keep(base.as_ref(), &[]) {
                Ok(()) => return ExitCode::SUCCESS,
                Err(error) => error,
            },
            None => std::io::ErrorKind::InvalidInput.into(),
        },
        Some("child") => plimsoll_lab::process::child(arguments),
        _ => std::io::ErrorKind::InvalidInput.into(),
    };
    eprintln!("error: {error}");
    ExitCode::from(127)
}
