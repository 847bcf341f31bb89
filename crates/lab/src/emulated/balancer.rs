//! An instance of a gateway that nginx or HAProxy stands for (`balancer`), configured by what `plimsoll export` writes.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll_export::{Directory, Files, Site};
use plimsoll_model::system::{Balancer, ServiceId, System};
use rustix::process::{Pid, Signal, kill_process};

use super::gateway::{Running, addresses_of, at_places};
use super::{CannotRun, Process};
use crate::control;
use crate::layout::Place;

/// Where distributions put them. The environment is not asked: a run looks the same for everybody on a machine.
const PLACES: [&str; 6] =
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/opt/homebrew/bin", "/opt/local/sbin"];

/// Between two looks at whether it runs and who is behind it.
const LOOK: Duration = Duration::from_millis(50);

/// A program's name, which is that of its package too.
pub fn name(balancer: Balancer) -> &'static str {
    match balancer {
        Balancer::Plimsoll => "plimsoll",
        Balancer::Nginx => "nginx",
        Balancer::Haproxy => "haproxy",
    }
}

/// Where a program is, if it is on this machine.
pub fn program(balancer: Balancer) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(name(balancer))).find(|path| path.is_file())
}

pub(super) async fn run(
    process: Process,
    place: Place,
    (service, instance): (u32, u32),
    startup: u64,
    folder: &Path,
    own: &Path,
    balancer: Balancer,
) -> Result<(), CannotRun> {
    let running = Arc::new(Running::default());
    let system = at_places(&process.system, &process.layout, place, (service, instance), own);
    let files = own.join(format!("{}-{service}-{instance}", name(balancer)));
    std::fs::create_dir_all(&files)?;
    let site = Site {
        listen: Some(place.main.to_string().parse().map_err(io)?),
        files: Files::Directory(directory(&files)?),
        folder: Some(directory(&std::path::absolute(if folder == Path::new("") { Path::new(".") } else { folder })?)?),
        ..Site::default()
    };
    let configuration =
        Configuration { system, service: ServiceId(service), site, balancer, path: files.join("configuration") };
    let behind = || {
        let services = (0..process.system.services.len() as u32).filter(|at| *at != service);
        services.map(|at| addresses_of(&process.system, &process.layout, at, (service, instance), own)).collect()
    };
    let mut known: Vec<Vec<SocketAddr>> = behind();
    configuration.write(&known)?;
    tokio::spawn(control::answer(place.control, process.tools.tally.clone(), running.clone()));
    process.tools.timer.wait(startup).await;
    let Some(program) = program(balancer) else { return Err(CannotRun::Missing(name(balancer))) };
    let mut child = start(&program, balancer, &files, &configuration.path)?;
    let leaving = running.leaving.notified();
    let mut leaving = std::pin::pin!(leaving);
    let mut left = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return if left { Ok(()) } else { Err(CannotRun::Ended(name(balancer), status)) };
        }
        if !running.ready.load(Ordering::Acquire) && TcpStream::connect(place.main).is_ok() {
            running.ready.store(true, Ordering::Release);
        }
        let now = behind();
        if now != known {
            known = now;
            configuration.write(&known)?;
            tell(&child, if balancer == Balancer::Nginx { Signal::HUP } else { Signal::USR2 });
        }
        if left {
            tokio::time::sleep(LOOK).await;
        } else if tokio::time::timeout(LOOK, leaving.as_mut()).await.is_ok() {
            left = true;
            // What it has is ended first.
            tell(&child, if balancer == Balancer::Nginx { Signal::QUIT } else { Signal::USR1 });
        }
    }
}

/// What a program is told to do.
struct Configuration {
    system: System,
    service: ServiceId,
    site: Site,
    balancer: Balancer,
    path: PathBuf,
}

impl Configuration {
    /// Writes it for these instances, by service.
    fn write(&self, behind: &[Vec<SocketAddr>]) -> Result<(), CannotRun> {
        let mut site = self.site.clone();
        let others = self.system.services.iter().enumerate().filter(|(at, _)| *at != self.service.index());
        let led_to = |at: usize| super::gateway::edge_to(&self.system, self.service.0, at as u32).is_some();
        for ((at, service), addresses) in others.zip(behind) {
            if led_to(at) {
                let all = addresses.iter().map(|address| address.to_string().parse().map_err(io));
                site.upstreams.insert(service.name.clone(), all.collect::<Result<_, _>>()?);
            }
        }
        let write = match self.balancer {
            Balancer::Haproxy => plimsoll_export::haproxy,
            _ => plimsoll_export::nginx,
        };
        let text = write(&self.system, self.service, &site).map_err(io)?;
        Ok(std::fs::write(&self.path, text)?)
    }
}

fn start(program: &Path, balancer: Balancer, files: &Path, configuration: &Path) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    match balancer {
        Balancer::Haproxy => command.args(["-W", "-f"]).arg(configuration),
        _ => command.args(["-g", "daemon off;", "-p"]).arg(files).arg("-c").arg(configuration),
    };
    // It is of this process's group, and ends with it.
    command.stdin(Stdio::null()).spawn()
}

fn tell(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

fn directory(path: &Path) -> Result<Directory, CannotRun> {
    path.display().to_string().parse().map_err(io)
}

fn io(error: impl std::fmt::Display) -> CannotRun {
    CannotRun::Io(std::io::Error::other(error.to_string()))
}
