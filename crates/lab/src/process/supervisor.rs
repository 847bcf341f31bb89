//! Plimsoll's side of the keeper.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use super::protocol::{Exit, Request, Said, Signal, Spec, What};
use super::{Launch, ProcessError, directory, log};

/// How long the keeper may take to say that it is there: a busy machine is slow.
const STARTS: Duration = Duration::from_secs(20);

/// A run's processes and its directory. Dropping it ends them all, and waits for that.
///
/// Every call here stops the calling thread until it is answered, but never for the process's own work.
#[derive(Debug)]
pub struct Supervisor {
    shared: Arc<Shared>,
    keeper: Mutex<Option<Child>>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    socket: Mutex<UnixStream>,
    next: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    gone: bool,
    /// Who waits for an answer.
    waiting: BTreeMap<u64, mpsc::Sender<Result<u32, String>>>,
    /// Processes that have not ended.
    living: BTreeMap<u64, Arc<State>>,
}

#[derive(Debug, Default)]
struct State {
    exit: Mutex<Option<Exit>>,
    ended: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Supervisor {
    /// Starts a keeper, which makes the run's directory below `base` and removes those that killed runs have
    /// left there.
    pub fn start(launch: &Launch, base: &Path) -> Result<Supervisor, ProcessError> {
        let failed = |why: String| ProcessError::Keeper { program: launch.program.clone(), why };
        let io = |error: std::io::Error| failed(error.to_string());
        let (ours, theirs) = UnixStream::pair().map_err(io)?;
        let mut command = Command::new(&launch.program);
        command.args(&launch.arguments).arg("run").arg(base);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let mut keeper = command.spawn().map_err(io)?;
        // It holds the keeper's end of the socket, whose end would never be seen.
        drop(command);
        let mut lines = BufReader::new(ours.try_clone().map_err(io)?).lines();
        ours.set_read_timeout(Some(STARTS)).map_err(io)?;
        let first = lines.next().and_then(Result::ok).and_then(|line| serde_json::from_str(&line).ok());
        ours.set_read_timeout(None).map_err(io)?;
        let directory = match first {
            Some(Said::Ready { directory }) => PathBuf::from(directory),
            other => {
                let _ = (keeper.kill(), keeper.wait());
                return Err(match other {
                    Some(Said::Failed { why }) => ProcessError::Directory { path: base.to_owned(), why },
                    _ => failed("it does not answer".to_owned()),
                });
            }
        };
        let shared =
            Arc::new(Shared { directory, socket: Mutex::new(ours), next: AtomicU64::new(1), known: Mutex::default() });
        let supervisor = Supervisor { shared: shared.clone(), keeper: Mutex::new(Some(keeper)) };
        let listening = std::thread::Builder::new().name("keeper".to_owned());
        listening.spawn(move || shared.listen(lines)).map_err(io)?;
        Ok(supervisor)
    }

    /// The run's directory, which is gone when the run is. Users other than plimsoll's may look into it.
    pub fn directory(&self) -> &Path {
        &self.shared.directory
    }

    /// Starts a process in a group of its own.
    pub fn spawn(&self, spec: Spec) -> Result<Process, ProcessError> {
        let (name, program) = (spec.name.clone(), spec.program.clone());
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let state = Arc::<State>::default();
        lock(&self.shared.known).living.insert(id, state.clone());
        match self.shared.ask(What::Spawn { id, spec }) {
            Ok(Ok(pid)) => Ok(Process { shared: self.shared.clone(), id, pid, name, state }),
            Ok(Err(why)) => {
                lock(&self.shared.known).living.remove(&id);
                Err(ProcessError::Start { name, program, why })
            }
            Err(error) => Err(error),
        }
    }

    /// The keeper's number.
    pub fn keeper(&self) -> u32 {
        lock(&self.keeper).as_ref().map_or(0, Child::id)
    }

    /// Ends every process, asking first and killing what is left after `grace`, and removes the directory. Whoever
    /// still has processes of it finds them gone.
    pub fn end(&self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let _ = self.shared.ask(What::End { grace_ms });
        self.wait();
    }

    fn wait(&self) {
        // Held until all is done: who comes second waits for the first.
        let mut held = lock(&self.keeper);
        let Some(mut keeper) = held.take() else { return };
        let _ = lock(&self.shared.socket).shutdown(Shutdown::Write);
        let _ = keeper.wait();
        // Nothing, unless the keeper was killed.
        directory::remove(&self.shared.directory);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.wait();
    }
}

impl Shared {
    fn ask(&self, what: What) -> Result<Result<u32, String>, ProcessError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = mpsc::channel();
        {
            let mut known = lock(&self.known);
            if known.gone {
                return Err(ProcessError::Gone);
            }
            known.waiting.insert(number, sender);
        }
        let mut line = serde_json::to_vec(&Request { number, what }).map_err(|_| ProcessError::Gone)?;
        line.push(b'\n');
        let sent = lock(&self.socket).write_all(&line);
        let answer = sent.ok().and_then(|()| answer.recv().ok());
        lock(&self.known).waiting.remove(&number);
        answer.ok_or(ProcessError::Gone)
    }

    fn listen(&self, lines: impl Iterator<Item = std::io::Result<String>>) {
        for line in lines.map_while(Result::ok) {
            match serde_json::from_str(&line) {
                Ok(Said::Answer { number, result }) => {
                    if let Some(sender) = lock(&self.known).waiting.remove(&number) {
                        let _ = sender.send(result);
                    }
                }
                Ok(Said::Exited { id, exit }) => {
                    let state = lock(&self.known).living.remove(&id);
                    state.iter().for_each(|state| state.end(exit));
                }
                Ok(Said::Ready { .. } | Said::Failed { .. }) | Err(_) => break,
            }
        }
        let mut known = lock(&self.known);
        known.gone = true;
        known.waiting.clear();
        std::mem::take(&mut known.living).values().for_each(|state| state.end(Exit::Lost));
    }
}

impl State {
    fn end(&self, exit: Exit) {
        *lock(&self.exit) = Some(exit);
        self.ended.notify_all();
    }
}

/// A process of a run. What it has started counts as part of it, whether or not it stayed in its group.
#[derive(Clone, Debug)]
pub struct Process {
    shared: Arc<Shared>,
    id: u64,
    pid: u32,
    name: String,
    state: Arc<State>,
}

impl Process {
    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        *lock(&self.state.exit)
    }

    /// Waits until it ends, but no longer than this.
    pub fn wait(&self, patience: Duration) -> Option<Exit> {
        let exit = lock(&self.state.exit);
        let waited = self.state.ended.wait_timeout_while(exit, patience, |exit| exit.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sends it a signal, and nobody else.
    pub fn signal(&self, signal: Signal) -> Result<(), ProcessError> {
        self.ask(What::Signal { id: self.id, signal }).map(drop)
    }

    /// Stops it and all that it has started (`SIGSTOP`), and tells how many processes that were: none of them
    /// runs any more. Clients can still connect; only a timeout tells them that nobody is there.
    pub fn pause(&self) -> Result<u32, ProcessError> {
        self.ask(What::Pause { id: self.id })
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<u32, ProcessError> {
        self.ask(What::Resume { id: self.id })
    }

    /// Kills it and all that it has started at one moment, as a machine dies. Nothing of it is left after.
    pub fn kill(&self) -> Result<Exit, ProcessError> {
        self.stop(Duration::ZERO)
    }

    /// Asks it to end, and kills what is left of it after `grace`. Nothing of it is left after.
    pub fn stop(&self, grace: Duration) -> Result<Exit, ProcessError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.ask(What::Stop { id: self.id, grace_ms })?;
        Ok(self.exit().unwrap_or(Exit::Lost))
    }

    /// Where its output is.
    pub fn log(&self) -> PathBuf {
        self.shared.directory.join(&self.name).with_added_extension("log")
    }

    /// The end of its output, for errors: at most so many lines.
    pub fn last_words(&self, lines: usize) -> String {
        let path = self.log();
        let read = |path: &Path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let text = read(&log::older(&path)).unwrap_or_default() + &read(&path).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn ask(&self, what: What) -> Result<u32, ProcessError> {
        self.shared.ask(what)?.map_err(|why| ProcessError::Refused { name: self.name.clone(), why })
    }
}
