use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use plimsoll_report::terminal::Style;

/// Files to write a result to, beside the terminal.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Outputs {
    /// Write one self-contained HTML page
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Write the result as JSON, for `compare` and for other programs
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write JUnit XML, for build servers
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// When to colour the terminal's output
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    pub(crate) color: Colour,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    Always,
    Never,
}

impl Outputs {
    /// How to draw for standard output.
    pub(crate) fn style(&self) -> Style {
        style(self.color)
    }
}

/// How to draw for standard output.
#[allow(clippy::disallowed_methods)] // The command line is where the environment is read.
pub(crate) fn style(colour: Colour) -> Style {
    let terminal = std::io::stdout().is_terminal();
    let plain = std::env::var("NO_COLOR").is_ok_and(|value| !value.is_empty());
    let color = match colour {
        Colour::Auto => terminal && !plain,
        Colour::Always => true,
        Colour::Never => false,
    };
    Style { color, ..Style::default() }
}

/// Writes a file whole or not at all: into a temporary file beside it, which then takes its name.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = || format!("{}: cannot be written", path.display());
    let mut file = tempfile::Builder::new().prefix(".plimsoll-").tempfile_in(folder).with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).with_context(failed)?;
    }
    file.persist(path).map_err(|error| error.error).with_context(failed)?;
    Ok(())
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(())
}

/// Says where a file was written, where somebody reads along.
pub(crate) fn wrote(path: &Path) {
    eprintln!("wrote {}", path.display());
}
