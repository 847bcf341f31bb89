//! What runs between the keeper's fork and the program.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal};

/// Becomes the program: `KEEPER FOLDER PROGRAM ARGUMENTS...`. Returns only when that is not possible; the
/// caller says why on standard error, which is the process's log, and exits with 127.
pub fn child(mut arguments: impl Iterator<Item = String>) -> io::Error {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "only the keeper of a run's processes calls this");
    let keeper: Option<i32> = arguments.next().and_then(|text| text.parse().ok());
    let (Some(keeper), Some(folder), Some(program)) =
        (keeper.and_then(Pid::from_raw), arguments.next(), arguments.next())
    else {
        return usage();
    };
    // Only after the user was changed, which takes the signal away; the program inherits it.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        return error.into();
    }
    #[cfg(not(target_os = "linux"))]
    let _ = Signal::KILL;
    // Its end before that sends no signal any more.
    if rustix::process::getppid() != Some(keeper) {
        return io::Error::other("the keeper has ended");
    }
    Command::new(&program).args(arguments).current_dir(&folder).exec()
}
