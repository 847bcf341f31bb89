//! What has been acknowledged, for all processes of a run to look at: files that everyone reads and writes at places of
//! its own. Without it nobody could say that what a replica shows is old.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bits of a version; those above are the timeline's.
const VERSION_BITS: u32 = 44;

/// The newest acknowledged version of every row of a table.
#[derive(Debug)]
pub struct Board(File);

impl Board {
    /// A table's, in the run's directory.
    pub fn open(own: &Path, store: u32, table: u32) -> io::Result<Board> {
        open(&own.join(format!("acknowledged-{store}-{table}"))).map(Board)
    }

    /// A version was acknowledged. Of two at the same moment the older may stay: one stale read may go unseen.
    pub fn record(&self, key: u32, timeline: u32, version: u64) {
        let value = u64::from(timeline) << VERSION_BITS | version;
        if read(&self.0, key) < value {
            write(&self.0, key, value);
        }
    }

    /// The newest version of a row that was acknowledged on this timeline, if any was. What was acknowledged on one that
    /// has ended may be lost.
    pub fn newest(&self, key: u32, timeline: u32) -> Option<u64> {
        let value = read(&self.0, key);
        (value >> VERSION_BITS == u64::from(timeline)).then_some(value & ((1 << VERSION_BITS) - 1))
    }
}

/// When the newest beat that a primary has acknowledged was made, ns on the run's clock.
#[derive(Debug)]
pub struct Beat(File);

impl Beat {
    /// A shard's, in the run's directory.
    pub fn open(own: &Path, store: u32, shard: u32) -> io::Result<Beat> {
        open(&own.join(format!("beat-{store}-{shard}"))).map(Beat)
    }

    /// Another one was acknowledged.
    pub fn set(&self, at: u64) {
        write(&self.0, 0, at);
    }

    /// The newest; 0 before the first.
    pub fn newest(&self) -> u64 {
        read(&self.0, 0)
    }
}

fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn read(file: &File, place: u32) -> u64 {
    let mut bytes = [0; 8];
    match file.read_exact_at(&mut bytes, u64::from(place) * 8) {
        Ok(()) => u64::from_le_bytes(bytes),
        // Nobody has written there.
        Err(_) => 0,
    }
}

fn write(file: &File, place: u32, value: u64) {
    let _ = file.write_all_at(&value.to_le_bytes(), u64::from(place) * 8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_stays_until_the_timeline_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ours, theirs) =
            (Board::open(folder.path(), 0, 1).expect("a file"), Board::open(folder.path(), 0, 1).expect("the same"));
        assert_eq!(theirs.newest(7, 1), None);
        ours.record(7, 1, 3);
        theirs.record(7, 1, 2);
        assert_eq!((ours.newest(7, 1), theirs.newest(7, 1), theirs.newest(6, 1)), (Some(3), Some(3), None));
        ours.record(7, 2, 1);
        assert_eq!((theirs.newest(7, 1), theirs.newest(7, 2)), (None, Some(1)));
        let beat = Beat::open(folder.path(), 0, 0).expect("a file");
        assert_eq!(beat.newest(), 0);
        beat.set(42);
        assert_eq!(Beat::open(folder.path(), 0, 0).expect("the same").newest(), 42);
    }
}
