//! A fresh cluster's files: made once by `initdb`, and copied from then on, which takes a tenth of the time.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::node::{Tools, file};
use super::{DATABASE, PostgresError, SUPERUSER};

/// Changes with what is made here.
const EDITION: u32 = 1;

static TURN: Mutex<()> = Mutex::new(());

/// The template's directory, below that of runs, where only this user may write.
pub(super) fn find(tools: &Tools) -> Result<PathBuf, PostgresError> {
    let folder = tools.supervisor.directory();
    let user = tools.user.map_or(0, |(user, _)| user);
    let name = format!("postgres-{}-{EDITION}-{user}", tools.binaries.version);
    let template = folder.parent().unwrap_or(folder).join(name);
    // Several clusters of a run may start at once.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    if template.is_dir() {
        return Ok(template);
    }
    // Within the run's directory, which is removed whatever happens, until it is whole.
    let made = folder.join("template");
    tools.own_folder(&made)?;
    let data = made.display().to_string();
    let initdb = [
        "--pgdata",
        &data,
        "--username",
        SUPERUSER,
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        // Small files are copied faster, and nothing here is large.
        "--wal-segsize=4",
    ];
    tools.run("initdb", &initdb)?;
    for sql in [format!("CREATE ROLE {DATABASE} LOGIN"), format!("CREATE DATABASE {DATABASE} OWNER {DATABASE}")] {
        // The server reads statements from a file where it reads none from standard input.
        let single = ["-c", "echo \"$1\" | \"$2\" --single -D \"$3\" postgres", "sh", &sql].map(str::to_owned);
        let rest = [tools.binaries.program("postgres"), data.clone()];
        let arguments: Vec<&str> = single.iter().chain(&rest).map(String::as_str).collect();
        tools.run_program("single", "/bin/sh", &arguments)?;
    }
    match std::fs::rename(&made, &template) {
        // Another run was faster.
        Err(_) if template.is_dir() => {}
        renamed => renamed.map_err(file(&template))?,
    }
    Ok(template)
}

/// Copies a template for a server.
pub(super) fn copy(from: &Path, to: &Path, user: Option<(u32, u32)>) -> Result<(), PostgresError> {
    copy_folder(from, to, user).map_err(file(to))
}

fn copy_folder(from: &Path, to: &Path, user: Option<(u32, u32)>) -> io::Result<()> {
    std::fs::create_dir(to)?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o700))?;
    own(to, user)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target, user)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
            own(&target, user)?;
        }
    }
    Ok(())
}

/// Gives a file to the user that servers run as.
pub(super) fn own(path: &Path, user: Option<(u32, u32)>) -> io::Result<()> {
    match user {
        Some((user, group)) => chown(path, Some(user), Some(group)),
        None => Ok(()),
    }
}
