//! What benchmarks that start processes have in common: the program that is measured, a folder, the machine.

mod process;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use process::Process;

/// Builds the program that is measured as it is released, and says where it is.
pub fn build() -> Result<String, Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "-p", "plimsoll", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()?;
    if !built.success() {
        return Err("plimsoll does not build".into());
    }
    Ok(target.join("release/plimsoll").to_string_lossy().into_owned())
}

/// What else the machine does.
pub fn machine() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let averages: Vec<&str> = load.split_whitespace().take(3).collect();
    format!("{cores} cores, load average {}", averages.join(" "))
}

/// The value in the middle; of an even number of them the larger of two.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A folder for configurations, which goes with the value.
pub struct Folder(pub PathBuf);

impl Folder {
    /// Makes one, named for this process.
    pub fn new() -> std::io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("plimsoll-bench-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
