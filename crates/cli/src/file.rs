use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use plimsoll_model::system::System;
use plimsoll_model::{Problems, Source};

/// The examples that the program carries.
pub(crate) const EXAMPLES: &[(&str, &str)] = &[
    ("notes", include_str!("../../../examples/notes.yaml")),
    ("checkout", include_str!("../../../examples/checkout.yaml")),
    ("feed", include_str!("../../../examples/feed.yaml")),
    ("chat", include_str!("../../../examples/chat.yaml")),
    ("saas", include_str!("../../../examples/saas.yaml")),
    ("metrics", include_str!("../../../examples/metrics.yaml")),
    ("retry-storm", include_str!("../../../examples/retry-storm.yaml")),
    ("retry-storm-repaired", include_str!("../../../examples/retry-storm-repaired.yaml")),
];

/// The example that commands without a file use.
pub(crate) const DEFAULT: &str = "notes";

/// More than the parser takes, so that it is the one to say so.
const MOST_BYTES: u64 = (16 << 20) + 1;

/// All that is wrong with a system file, ready to be shown.
#[derive(Debug)]
pub(crate) struct Refused(String);

impl Refused {
    pub(crate) fn of(problems: &Problems) -> Refused {
        Refused(problems.render(std::io::IsTerminal::is_terminal(&std::io::stderr())))
    }
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A system file in memory.
pub(crate) struct SystemFile {
    pub(crate) name: String,
    bytes: Vec<u8>,
    folder: PathBuf,
}

impl SystemFile {
    /// Reads a file, or takes the example when there is none.
    pub(crate) fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else {
            let (name, text) = EXAMPLES.iter().find(|(name, _)| *name == DEFAULT).expect("it is one of them");
            return Ok(SystemFile::built_in(&format!("{name}.yaml"), text));
        };
        let name = path.display().to_string();
        let metadata = std::fs::metadata(path).with_context(|| format!("{name}: cannot be read"))?;
        if metadata.is_dir() {
            bail!("{name}: expected a system file, found a directory");
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).with_context(|| format!("{name}: cannot be opened"))?;
        file.take(MOST_BYTES).read_to_end(&mut bytes).with_context(|| format!("{name}: cannot be read"))?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(SystemFile { name, bytes, folder })
    }

    /// A file that the program carries.
    pub(crate) fn built_in(name: &str, text: &str) -> Self {
        SystemFile { name: format!("{name} (built in)"), bytes: text.as_bytes().to_vec(), folder: PathBuf::new() }
    }

    /// What the file says.
    pub(crate) fn system(&self) -> anyhow::Result<System> {
        self.read(plimsoll_model::parse)
    }

    /// The file with every default filled in.
    pub(crate) fn explain(&self) -> anyhow::Result<String> {
        self.read(plimsoll_model::explain)
    }

    /// The file for other processes, which was read from there.
    pub(crate) fn for_others(&self, path: Option<&Path>) -> plimsoll_lab::File {
        match path {
            Some(path) => plimsoll_lab::File::Path(path.to_owned()),
            None => plimsoll_lab::File::Text(self.bytes.clone()),
        }
    }

    fn read<T>(&self, f: impl Fn(&Source<'_>) -> Result<T, Problems>) -> anyhow::Result<T> {
        let read = |name: &str| std::fs::read(self.folder.join(name)).map_err(|error| error.to_string());
        let source = Source { name: &self.name, bytes: &self.bytes, read: &read };
        f(&source).map_err(|problems| Refused::of(&problems).into())
    }
}
