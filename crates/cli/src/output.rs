use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
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

/// Whether a file can be written there, as far as can be seen before there is anything to write: a
/// search of minutes should not end with a typing error.
pub(crate) fn check<'p>(paths: impl IntoIterator<Item = &'p Option<PathBuf>>) -> anyhow::Result<()> {
    for path in paths.into_iter().flatten() {
        let name = path.display();
        let says_so = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        if says_so || path.is_dir() || path.file_name().is_none() {
            bail!("{name}: cannot be written: it is a directory");
        }
        if !folder(path).is_dir() {
            bail!("{name}: cannot be written: there is no directory {}", folder(path).display());
        }
    }
    Ok(())
}

/// Writes a file whole or not at all: into a temporary file beside it, which then takes its name.
/// A link is followed. A pipe or a device is written to, for it must not be replaced.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    check([&Some(path.to_owned())])?;
    let failed = || format!("{}: cannot be written", path.display());
    let target = match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => {
            let mut file = std::fs::OpenOptions::new().write(true).open(path).with_context(failed)?;
            return file.write_all(text.as_bytes()).with_context(failed);
        }
        Ok(_) => std::fs::canonicalize(path).with_context(failed)?,
        Err(_) => path.to_owned(),
    };
    let mut file = tempfile::Builder::new().prefix(".plimsoll-").tempfile_in(folder(&target)).with_context(failed)?;
    file.write_all(text.as_bytes()).with_context(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).with_context(failed)?;
    }
    file.persist(&target).map_err(|error| error.error).with_context(failed)?;
    Ok(())
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Prints to standard output. A reader who has seen enough (`| head`) is no error of ours.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Says where a file was written, where somebody reads along.
pub(crate) fn wrote(path: &Path) {
    eprintln!("wrote {}", path.display());
}
