use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use plimsoll_gateway::{Gateway as Running, Plan, StartError};

use crate::exit::Exit;
use crate::file::SystemFile;
use crate::output::print;

/// Serve a gateway of the system file: a reverse proxy with its policies
#[derive(clap::Args, Debug)]
pub(crate) struct Gateway {
    /// The system file
    file: PathBuf,
    /// The gateway [default: the only one]
    name: Option<String>,
    /// Say what would be served, and end
    #[arg(long)]
    check: bool,
    /// Reload when the file changes, as on SIGHUP
    #[arg(long)]
    watch: bool,
    /// Start beside the gateway that it is to replace, at the same addresses: stop that one then with SIGTERM
    #[arg(long, conflicts_with = "check")]
    take_over: bool,
}

/// What ends a wait.
enum Event {
    Reload,
    Reopen,
    Stop { at_once: bool },
}

impl Gateway {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let plan = self.plan()?;
        if self.check {
            let targets = plan.targets.iter().map(|target| target.service.as_str()).collect::<Vec<_>>().join(", ");
            print(&format!("{}: {} endpoints, answered by {targets}", plan.name, plan.routes.len()))?;
            return Ok(Exit::Held);
        }
        let name = plan.name.clone();
        let folder = self.file.parent().map(Path::to_owned).unwrap_or_default();
        let signals = plimsoll_gateway::signals::Signals::listen().context("signals")?;
        let running = if self.take_over { Running::take_over(plan, &folder) } else { Running::start(plan, &folder) };
        let running = running.map_err(|error| self.cannot_start(error))?;
        let mut said = Vec::new();
        say_addresses(&name, &running, &mut said);
        let mut seen = stamp(&self.file);
        loop {
            running.notices().iter().for_each(|notice| eprintln!("{name}: {notice}"));
            let event = match signals.next(Duration::from_millis(500)) {
                Some(plimsoll_gateway::signals::Signal::Hangup) => Some(Event::Reload),
                Some(plimsoll_gateway::signals::Signal::User1) => Some(Event::Reopen),
                Some(plimsoll_gateway::signals::Signal::Terminate) => Some(Event::Stop { at_once: false }),
                Some(plimsoll_gateway::signals::Signal::Interrupt) => Some(Event::Stop { at_once: true }),
                None if self.watch && stamp(&self.file) != seen => Some(Event::Reload),
                None => None,
            };
            match event {
                None => {}
                Some(Event::Reopen) => running.reopen_log(),
                Some(Event::Reload) => {
                    seen = stamp(&self.file);
                    running.reopen_log();
                    // What runs goes on as it is while the file is not sound.
                    match self.plan().and_then(|plan| Ok(running.reload(plan)?)) {
                        Ok(()) => {
                            eprintln!("{name}: reloaded");
                            say_addresses(&name, &running, &mut said);
                        }
                        Err(error) => eprintln!("{name}: not reloaded: {}", format!("{error:#}").trim_end()),
                    }
                }
                Some(Event::Stop { at_once }) => {
                    eprintln!("{name}: stopping");
                    signals.exit_on_next();
                    running.stop(at_once);
                    return Ok(Exit::Held);
                }
            }
        }
    }

    /// A gateway of the same user is perhaps the one that this is to replace.
    fn cannot_start(&self, error: StartError) -> anyhow::Error {
        let taken = matches!(&error, StartError::Listen { why, .. } if why.kind() == std::io::ErrorKind::AddrInUse);
        let error = anyhow::Error::from(error);
        let error = match taken && !self.take_over {
            true => anyhow::anyhow!("{error:#}; to replace the gateway that listens there: --take-over"),
            false => error,
        };
        error.context(format!("{}", self.file.display()))
    }

    fn plan(&self) -> anyhow::Result<Plan> {
        let file = SystemFile::open(Some(&self.file))?;
        let system = file.system()?;
        match Plan::new(&system, self.name.as_deref()) {
            Ok(plan) => Ok(Plan { text: file.explain()?, ..plan }),
            Err(problem) if problem.line == 0 => bail!("{}: {problem}", file.name),
            Err(problem) => bail!("{}:{}: {problem}", file.name, problem.line),
        }
    }
}

/// Says where a gateway listens, as far as that is news.
fn say_addresses(name: &str, running: &Running, said: &mut Vec<String>) {
    let listens = running.addresses().into_iter().map(|address| format!("{name} listens on {address}"));
    let all: Vec<String> = listens.chain(running.admin().map(|at| format!("{name} is administered on {at}"))).collect();
    all.iter().filter(|line| !said.contains(line)).for_each(|line| eprintln!("{line}"));
    *said = all;
}

/// When a file was changed last, and how long it is.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
