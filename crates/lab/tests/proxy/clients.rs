//! Public clients of Toxiproxy, as their own pages show them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{echo, proxies};

/// Where a client's package is, installed anew if it is not there yet.
fn installed(name: &str, install: impl Fn(&Path) -> Command) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !folder.exists() {
        let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let output = install(made.path()).output().unwrap_or_else(|error| {
            panic!("{name} cannot be installed: {error} (./scripts/packages installs what it takes)")
        });
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        // Another test run may have been faster.
        let _ = std::fs::rename(made.path(), &folder);
    }
    folder
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.ends_with("done\n"), "{said}");
}

#[test]
fn the_python_client_drives_it() {
    let package = installed("toxiproxy-python-0.1.1", |folder| {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]).arg(folder);
        pip.arg("toxiproxy-python==0.1.1");
        pip
    });
    let proxies = proxies();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/client.py");
    let api = proxies.api().expect("an API").port().to_string();
    run(Command::new("python3").arg(script).arg(api).arg(echo().to_string()).env("PYTHONPATH", package));
}

#[test]
fn the_node_client_drives_it() {
    let package = installed("toxiproxy-node-client-4.1.0", |folder| {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"]).arg(folder);
        npm.arg("toxiproxy-node-client@4.1.0");
        npm
    });
    let proxies = proxies();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/client.js");
    let api = format!("http://{}", proxies.api().expect("an API"));
    let modules = package.join("node_modules");
    run(Command::new("node").arg(script).arg(api).arg(echo().to_string()).env("NODE_PATH", modules));
}
