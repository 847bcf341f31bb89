//! A run's directory: made, locked while the run lives, and removed.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;

/// What a run's directory begins with.
const PREFIX: &str = "run-";

/// A run's directory. The lock tells others that somebody will remove it.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes one in a folder that only this user may write to, and removes those that killed runs left there.
    /// Others may pass through it: processes of a run may be another user's.
    pub(super) fn create(base: &Path) -> Result<Directory, String> {
        let folder = base.join(format!("plimsoll-{}", rustix::process::geteuid().as_raw()));
        own(&folder)?;
        let failed = |error: io::Error| format!("{}: {error}", folder.display());
        // While this is held, no other run looks at a directory whose lock is not there yet.
        let turn = File::create(folder.join("lock")).map_err(failed)?;
        turn.lock().map_err(failed)?;
        sweep(&folder).map_err(failed)?;
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .tempdir_in(&folder)
            .map_err(failed)?
            .keep();
        let lock = File::create(path.join("lock")).map_err(failed)?;
        lock.lock().map_err(failed)?;
        Ok(Directory { path, _lock: lock })
    }
}

/// Makes a folder, or makes sure that the one which is there is ours: in a folder that all may write to,
/// somebody may have been there first.
fn own(folder: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", folder.display());
    match std::fs::DirBuilder::new().mode(0o755).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let there = std::fs::symlink_metadata(folder).map_err(failed)?;
    if !there.is_dir() {
        return Err(format!("{}: it is no directory", folder.display()));
    }
    if there.uid() != rustix::process::geteuid().as_raw() || there.mode() & 0o022 != 0 {
        return Err(format!("{}: others may write to it", folder.display()));
    }
    Ok(())
}

/// Removes the directories that nobody holds: their run and its keeper were both killed.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let free = match File::open(entry.path().join("lock")) {
            Ok(lock) => lock.try_lock().is_ok(),
            // Killed between the directory and its lock: nobody else is at work, for we have the turn.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if free {
            remove(&entry.path());
        }
    }
    Ok(())
}

/// Removes a directory. Whoever still writes there as it goes is waited for.
pub(super) fn remove(path: &Path) {
    for _ in 0..50 {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => clock::block(Duration::from_millis(10)),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_nobody_holds_is_removed_by_the_next() {
        let base = tempfile::tempdir().expect("a folder");
        let held = Directory::create(base.path()).expect("one");
        let left = Directory::create(base.path()).expect("another");
        std::fs::write(left.path.join("file"), "data").expect("a file");
        let bare = left.path.parent().expect("a folder").join("run-bare");
        std::fs::create_dir(&bare).expect("one without a lock");
        let path = left.path.clone();
        drop(left);
        assert!(path.exists());
        let next = Directory::create(base.path()).expect("the next");
        assert!(held.path.exists() && next.path.exists());
        assert!(!path.exists() && !bare.exists());
    }

    #[test]
    fn a_folder_of_somebody_elses_is_refused() {
        let base = tempfile::tempdir().expect("a folder");
        let folder = base.path().join(format!("plimsoll-{}", rustix::process::geteuid().as_raw()));
        std::os::unix::fs::symlink("/tmp", &folder).expect("a link");
        let why = Directory::create(base.path()).expect_err("a link");
        assert!(why.ends_with("it is no directory"), "{why}");
        std::fs::remove_file(&folder).expect("removed");
        std::fs::DirBuilder::new().create(&folder).expect("a folder");
        std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("a mode");
        let why = Directory::create(base.path()).expect_err("a folder for all");
        assert!(why.ends_with("others may write to it"), "{why}");
    }
}
