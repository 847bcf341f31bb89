//! What a process writes to its standard output and error, in a file that stays small.

use std::fs::File;
use std::io::{PipeReader, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes that are kept unless the process says otherwise.
pub(super) const BYTES: u64 = 4 << 20;

/// Copies until the last writer is gone. When a file has half of the bytes, it becomes `NAME.log.1` in place
/// of the one before, and another is begun: the end of a log is what explains a death.
pub(super) fn copy(mut from: PipeReader, path: PathBuf, bytes_max: u64) {
    let half = (bytes_max / 2).max(1);
    let mut buffer = vec![0; 16 << 10];
    let mut written = 0;
    let mut file = File::create(&path).ok();
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if written >= half {
            let _ = std::fs::rename(&path, older(&path));
            file = File::create(&path).ok();
            written = 0;
        }
        // A full disk must not stop the process: what cannot be kept is lost, and read all the same.
        if let Some(file) = &mut file
            && file.write_all(&buffer[..count]).is_ok()
        {
            written += count as u64;
        }
    }
}

/// Where the older half is.
pub(super) fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_kept_and_no_more() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.log");
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let copying = {
            let path = path.clone();
            std::thread::spawn(move || copy(reader, path, 100_000))
        };
        let text: String = (0..100_000).map(|line| format!("line {line}\n")).collect();
        writer.write_all(text.as_bytes()).expect("written");
        drop(writer);
        copying.join().expect("it ends");
        let [new, old] = [&path, &older(&path)].map(|path| std::fs::read_to_string(path).expect("a file"));
        assert!(text.ends_with(&(old.clone() + &new)));
        assert!(new.len() + old.len() <= 100_000 + 2 * (16 << 10), "{} and {}", new.len(), old.len());
        assert!(old.len() >= 50_000);
    }
}
