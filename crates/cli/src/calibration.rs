//! What commands that simulate take of a calibration.

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use plimsoll_model::calibration::Calibration;
use plimsoll_model::system::System;

use crate::file::Refused;

/// Larger files are none that `plimsoll calibrate` wrote.
const MOST_BYTES: u64 = 16 << 20;

/// Times of a machine in the place of those that the file says.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Calibrated {
    /// Take times from a file that `plimsoll calibrate` wrote
    #[arg(long, value_name = "FILE")]
    pub(crate) calibration: Option<PathBuf>,
}

impl Calibrated {
    /// Puts the file's times, if there is one, in the place of the system's.
    pub(crate) fn apply(&self, system: &mut System) -> anyhow::Result<()> {
        if let Some(calibration) = self.read(system)? {
            calibration.apply(system);
        }
        Ok(())
    }

    fn read(&self, system: &System) -> anyhow::Result<Option<Calibration>> {
        let Some(path) = &self.calibration else { return Ok(None) };
        let name = path.display().to_string();
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).with_context(|| format!("{name}: cannot be opened"))?;
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes).with_context(|| format!("{name}: cannot be read"))?;
        let read = plimsoll_model::read_calibration(&name, &bytes, system);
        let calibration = read.map_err(|problems| Refused::of(&problems))?;
        if !calibration.is_of(system) {
            let (of, this) = (&calibration.system, &system.name);
            eprintln!("warning: {name} was measured on another file of `{of}` than this one of `{this}`");
        }
        Ok(Some(calibration))
    }
}
