//! Proxies as processes: found, asked whether they take a configuration, started, and stopped whatever happens.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use plimsoll_export::{Files, Site};
use tempfile::TempDir;

use crate::Export;

/// A proxy that is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Haproxy,
}

impl Proxy {
    pub(crate) fn export(self) -> Export {
        match self {
            Proxy::Nginx => plimsoll_export::nginx,
            Proxy::Haproxy => plimsoll_export::haproxy,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx",
            Proxy::Haproxy => "haproxy",
        }
    }

    /// Debian puts it where only root's shell looks.
    #[allow(clippy::disallowed_methods)] // Where programs are is a matter of the environment.
    fn program(self) -> PathBuf {
        let path = std::env::var("PATH").unwrap_or_default();
        let folders = path.split(':').chain(["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"]);
        let found = folders.map(|folder| Path::new(folder).join(self.name())).find(|path| path.is_file());
        found.unwrap_or_else(|| {
            panic!("{0} is missing: install the package {0}, or run ./scripts/packages, which does it", self.name())
        })
    }

    /// Whether it takes a configuration: its own check of it.
    #[track_caller]
    pub(crate) fn accepts(self, name: &str, text: &str, folder: &Path) {
        let file = folder.join("configuration");
        std::fs::write(&file, text).expect("a file to write");
        let mut command = Command::new(self.program());
        match self {
            Proxy::Nginx => command.arg("-t").arg("-p").arg(folder).arg("-c").arg(&file),
            Proxy::Haproxy => command.arg("-c").arg("-f").arg(&file),
        };
        let Output { status, stderr, stdout } = command.stdin(Stdio::null()).output().expect("it runs");
        let said = String::from_utf8_lossy(&stderr).into_owned() + &String::from_utf8_lossy(&stdout);
        assert!(status.success(), "{name}: {} refuses\n{text}\nand says\n{said}", self.name());
        // How many files a process may open is the machine's affair.
        let warns = |line: &&str| line.to_lowercase().contains("warn") && !line.contains("open file resource limit");
        assert_eq!(said.lines().find(warns), None, "{name}: {} warns of\n{text}\nand says\n{said}", self.name());
    }
}

/// A proxy that runs, until this goes out of scope.
pub(crate) struct Running {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

impl Running {
    /// Starts a proxy with the configuration that is made for a free address of the loopback interface.
    pub(crate) fn start(proxy: Proxy, site: &Site, configuration: impl Fn(&Site) -> String) -> Running {
        // The port is free when it is chosen; another process may be quicker.
        for _ in 0..5 {
            let listener = listener();
            let address = listener.local_addr().expect("an address");
            drop(listener);
            let folder = folder();
            let files = Files::Directory(folder.path().to_str().expect("UTF-8").parse().expect("a plain path"));
            let listen = Some(address.to_string().parse().expect("an address"));
            let site = Site { listen, files, ..site.clone() };
            let file = folder.path().join("configuration");
            std::fs::write(&file, configuration(&site)).expect("a file to write");
            let log = std::fs::File::create(folder.path().join("output")).expect("a file to write");
            let mut command = ending_with_us(&proxy.program());
            match proxy {
                Proxy::Nginx => command.args(["-g", "daemon off;", "-p"]).arg(folder.path()).arg("-c").arg(&file),
                Proxy::Haproxy => command.arg("-f").arg(&file),
            };
            command.stdin(Stdio::null()).stdout(log.try_clone().expect("a file")).stderr(log);
            // A group of its own, so that nginx's workers can be stopped with it.
            let child = command.process_group(0).spawn().expect("it starts");
            let mut running = Running { child, address, _folder: folder };
            if running.ready() {
                return running;
            }
        }
        panic!("{} does not start", proxy.name());
    }

    /// Whether it accepts connections in the end; false where it has given up.
    #[allow(clippy::disallowed_methods)] // There is nothing to wait for but time.
    fn ready(&mut self) -> bool {
        for _ in 0..3_000 {
            if let Some(status) = self.child.try_wait().expect("its status") {
                let said = std::fs::read_to_string(self._folder.path().join("output")).unwrap_or_default();
                assert!(said.contains("ddress already in use"), "{status}: {said}");
                return false;
            }
            if TcpStream::connect(self.address).is_ok() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it runs, and does not listen");
    }

    /// Sends one request on a connection of its own. `headers` end their lines themselves.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str) -> Answer {
        request(self.address, method, path, headers)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The group, since nginx's workers outlive a master that is killed.
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that is told to stop when whoever started it is gone, where the system can do that: nothing is dropped in
/// a process that is killed.
fn ending_with_us(program: &Path) -> Command {
    if cfg!(target_os = "linux") {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// A listener on a free port, below those that systems give to whoever connects: such a port could be taken while its
/// listener is away, even by a connection to itself.
pub(crate) fn listener() -> TcpListener {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(97);
    let ports =
        (0..20_000).map(|_| 10_000 + (first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000) as u16);
    ports.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()).next().expect("a free port")
}

/// A folder that nginx's workers can enter: as root it gives them another user.
pub(crate) fn folder() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("its permissions");
    folder
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

#[track_caller]
pub(crate) fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let length = if method == "POST" { "Content-Length: 4\r\n\r\nbody" } else { "\r\n" };
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}{length}");
    // In one piece: the second of several small ones would wait for the first's acknowledgement.
    stream.write_all(request.as_bytes()).expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{head}"));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
