//! Where PostgreSQL's programs are.

use std::path::{Path, PathBuf};

use super::PostgresError;

/// The oldest version whose replicas take up another primary by reloading their settings.
const LEAST: u32 = 13;

/// Where distributions put them; `*` is a version.
const PLACES: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/libexec/postgresql*",
    "/usr/bin",
];

/// PostgreSQL's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
    /// The major version.
    pub version: u32,
}

impl Binaries {
    /// The newest that this machine has.
    pub fn find() -> Result<Binaries, PostgresError> {
        Binaries::find_in(&PLACES)
    }

    /// The newest in these places.
    pub fn find_in(places: &[&str]) -> Result<Binaries, PostgresError> {
        let found = places.iter().flat_map(|place| expand(place)).filter_map(|folder| Binaries::at(&folder));
        let newest = found.filter(|found| found.version >= LEAST).max_by_key(|found| found.version);
        newest.ok_or_else(|| PostgresError::Missing { least: LEAST, looked: places.join(", ") })
    }

    fn at(folder: &Path) -> Option<Binaries> {
        let needed = ["postgres", "initdb", "pg_rewind", "pg_basebackup"];
        if !needed.iter().all(|name| folder.join(name).is_file()) {
            return None;
        }
        let output = std::process::Command::new(folder.join("postgres")).arg("--version").output().ok()?;
        Some(Binaries { folder: folder.to_owned(), version: version(&String::from_utf8_lossy(&output.stdout))? })
    }

    /// The path of a program.
    pub fn program(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian ...)`
fn version(text: &str) -> Option<u32> {
    let number = text.split("(PostgreSQL) ").nth(1)?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The folders that a place stands for: one segment of it may have a `*`.
fn expand(place: &str) -> Vec<PathBuf> {
    let Some(star) = place.find('*') else { return vec![PathBuf::from(place)] };
    let (before, after) = (&place[..star], place[star + 1..].trim_start_matches('/'));
    let (parent, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let fitting = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    fitting.map(|entry| entry.path().join(after)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_whoever_built_it() {
        for (text, found) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("postgres (PostgreSQL) 17beta1\n", Some(17)),
            ("postgres (EnterpriseDB) 9\n", None),
            ("", None),
        ] {
            assert_eq!(version(text), found, "{text}");
        }
    }

    #[test]
    fn the_newest_whole_installation_is_taken() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().expect("a folder");
        let place = format!("{}/pg/*/bin", root.path().display());
        let missing = Binaries::find_in(&[&place]).expect_err("nothing there").to_string();
        assert!(
            missing.contains("install the package `postgresql`") && missing.contains("--emulate-stores"),
            "{missing}"
        );
        for (version, names) in [
            ("9", &["postgres", "initdb", "pg_rewind", "pg_basebackup"][..]),
            ("14", &["postgres", "initdb", "pg_rewind", "pg_basebackup"]),
            ("15", &["postgres", "initdb", "pg_rewind", "pg_basebackup"]),
            // Clients alone.
            ("16", &["pg_basebackup"]),
        ] {
            let folder = root.path().join("pg").join(version).join("bin");
            std::fs::create_dir_all(&folder).expect("a folder");
            for name in names {
                let text = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}.1'\n");
                std::fs::write(folder.join(name), text).expect("a program");
                std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o755)).expect("a mode");
            }
        }
        let found = Binaries::find_in(&["/no/such/place", &place]).expect("one");
        assert_eq!(found.version, 15);
        assert_eq!(found.program("initdb"), format!("{}/pg/15/bin/initdb", root.path().display()));
    }
}
