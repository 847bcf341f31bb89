//! The process that keeps the others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group, wait, waitid};

use super::directory::{self, Directory};
use super::protocol::{Exit, Request, Said, Signal, Spec, What};
use super::{ORPHANED, log, tree};
use crate::clock::Clock;

/// Keeps processes until standard input, a socket to plimsoll, ends or asks for it. `base` is where
/// directories of runs are; `arguments` makes this program run [`child`](super::child).
pub fn keep(base: &Path, arguments: &[&str]) -> io::Result<()> {
    // Away from the terminal: its Ctrl-C is for plimsoll, which then says what is to happen here.
    let _ = rustix::process::setsid();
    #[cfg(target_os = "linux")]
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let directory = match Directory::create(base) {
        Ok(directory) => directory,
        Err(why) => return say(&mut socket, &Said::Failed { why }),
    };
    let (events, received) = mpsc::channel();
    let (again, waits) = mpsc::channel();
    listen(socket.try_clone()?, events.clone())?;
    std::thread::Builder::new().name("deaths".to_owned()).spawn(move || watch(&events, &waits))?;
    let mut keeper = Keeper {
        clock: Clock::start(),
        socket,
        arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        path: directory.path.display().to_string(),
        children: BTreeMap::new(),
        again,
        ending: None,
    };
    keeper.say(&Said::Ready { directory: keeper.path.clone() });
    keeper.run(&received);
    // With the lock still held: nobody else looks at it meanwhile.
    directory::remove(&directory.path);
    if let Some(number) = keeper.ending.flatten() {
        keeper.answer(number, Ok(0));
    }
    Ok(())
}

enum Event {
    Request(Request),
    /// Somebody has ended.
    Deaths,
    /// Plimsoll has.
    Gone,
}

/// Reads requests.
fn listen(socket: UnixStream, events: Sender<Event>) -> io::Result<()> {
    let lines = BufReader::new(socket).lines();
    std::thread::Builder::new().name("requests".to_owned()).spawn(move || {
        for line in lines.map_while(Result::ok) {
            // Not understood: another program's, which is as good as gone.
            let Ok(request) = serde_json::from_str(&line) else { break };
            if events.send(Event::Request(request)).is_err() {
                return;
            }
        }
        let _ = events.send(Event::Gone);
    })?;
    Ok(())
}

/// Tells of deaths, and leaves it to the main thread to ask how they died: who starts a process may have to
/// do so himself.
fn watch(events: &Sender<Event>, waits: &Receiver<()>) {
    loop {
        let died = match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Ok(_) => true,
            Err(rustix::io::Errno::INTR) => continue,
            // Without children there is nothing to wait for until one is started.
            Err(_) => false,
        };
        if (died && events.send(Event::Deaths).is_err()) || waits.recv().is_err() {
            return;
        }
    }
}

fn say(socket: &mut UnixStream, said: &Said) -> io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    socket.write_all(&line)
}

struct Keeper {
    clock: Clock,
    socket: UnixStream,
    arguments: Vec<String>,
    path: String,
    children: BTreeMap<u64, Child>,
    /// Lets the watcher look again.
    again: Sender<()>,
    /// Set once all is to end, with the request that asked for it.
    ending: Option<Option<u64>>,
}

struct Child {
    /// Its number, and its group's.
    pid: Pid,
    stop: Signal,
    exit: Option<Exit>,
    /// Copies its output.
    log: std::thread::JoinHandle<()>,
    /// What it was seen to have started.
    known: tree::Known,
    stopping: Option<Stopping>,
}

struct Stopping {
    /// To be answered when nothing is left.
    numbers: Vec<u64>,
    /// When patience ends, in ns.
    kill_at: u64,
    /// What outlived the process itself, and was asked to end too: once.
    told: BTreeSet<tree::Key>,
}

/// How long the end of a log is waited for, ms.
const WORDS: u32 = 50;

/// How often it is looked whether anything is left of what is to end.
const LOOK: Duration = Duration::from_millis(5);

impl Keeper {
    fn run(&mut self, events: &Receiver<Event>) {
        while self.ending.is_none() || !self.children.is_empty() {
            let stopping = self.children.values().any(|child| child.stopping.is_some());
            let event = match stopping {
                true => events.recv_timeout(LOOK),
                false => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Request(request)) => self.handle(request),
                Ok(Event::Deaths) => self.bury(),
                Ok(Event::Gone) | Err(RecvTimeoutError::Disconnected) => self.end(None, ORPHANED),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.go_on_stopping();
        }
        // Daemons that left every group are here as orphans, and nobody's.
        loop {
            let left = tree::below(rustix::process::getpid().as_raw_nonzero().get());
            if left.is_empty() {
                return;
            }
            tree::signal(&left, rustix::process::Signal::KILL);
            self.bury();
            crate::clock::block(Duration::from_millis(1));
        }
    }

    fn handle(&mut self, Request { number, what }: Request) {
        let result = match what {
            What::Spawn { id, spec } => match self.spawn(&spec) {
                Ok(child) => {
                    let pid = child.pid.as_raw_nonzero().get().unsigned_abs();
                    self.children.insert(id, child);
                    Ok(pid)
                }
                Err(error) => Err(error.to_string()),
            },
            What::Signal { id, signal } => self
                .living(id)
                .and_then(|pid| kill_process(pid, raw(signal)).map(|()| 1).map_err(|error| error.to_string())),
            What::Pause { id } => self.living(id).and_then(|_| self.freeze(id)),
            What::Resume { id } => self.living(id).map(|_| {
                let members = self.members(id);
                tree::signal(&members, rustix::process::Signal::CONT);
                members.len() as u32
            }),
            What::Stop { id, grace_ms } if self.children.contains_key(&id) => {
                return self.stop(id, Some(number), Duration::from_millis(grace_ms));
            }
            // It has ended, and nothing is left of it.
            What::Stop { .. } => Ok(0),
            What::End { grace_ms } => return self.end(Some(number), Duration::from_millis(grace_ms)),
        };
        self.answer(number, result);
    }

    fn spawn(&mut self, spec: &Spec) -> io::Result<Child> {
        if self.ending.is_some() {
            return Err(io::Error::other("the run is ending"));
        }
        let named = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if spec.name.is_empty() || !spec.name.chars().all(named) {
            return Err(io::Error::other("a process's name has letters, digits, `-`, `_` and `.` alone"));
        }
        std::fs::metadata(&spec.program)?;
        let (reader, writer) = io::pipe()?;
        let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
        let mut command = Command::new(program);
        command.args(&self.arguments).arg("child");
        command.arg(std::process::id().to_string()).arg(spec.folder.as_ref().unwrap_or(&self.path));
        command.arg(&spec.program).args(&spec.arguments);
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0);
        for (name, value) in &spec.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some((user, group)) = spec.user {
            command.uid(user).gid(group);
        }
        let pid = command.spawn()?.id();
        // The pipe's writing end must not stay here, or its end would never be seen.
        drop(command);
        let _ = self.again.send(());
        let path = Path::new(&self.path).join(&spec.name).with_added_extension("log");
        let bytes = spec.log_bytes.unwrap_or(log::BYTES);
        let copying = std::thread::Builder::new().name(spec.name.clone());
        let log = copying.spawn(move || log::copy(reader, path, bytes))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Child { pid, stop: spec.stop, exit: None, log, known: tree::Known::default(), stopping: None })
    }

    fn living(&self, id: u64) -> Result<Pid, String> {
        match self.children.get(&id) {
            Some(Child { exit: None, pid, .. }) => Ok(*pid),
            Some(Child { exit: Some(exit), .. }) => Err(format!("it has ended: {exit}")),
            None => Err("it has ended".to_owned()),
        }
    }

    /// A process and what it has started.
    fn members(&mut self, id: u64) -> Vec<tree::Entry> {
        let Some(child) = self.children.get_mut(&id) else { return Vec::new() };
        let all = tree::below(rustix::process::getpid().as_raw_nonzero().get());
        let members = tree::members(&all, child.pid.as_raw_nonzero().get(), &child.known);
        let shared = rustix::process::getsid(None).map_or(0, |session| session.as_raw_nonzero().get());
        child.known = tree::Known::of(&members, shared);
        members
    }

    fn freeze(&mut self, id: u64) -> Result<u32, String> {
        match tree::freeze(|| self.members(id)) {
            (members, true) => Ok(members.len() as u32),
            (members, false) => Err(format!("not all of its {} processes stopped", members.len())),
        }
    }

    fn stop(&mut self, id: u64, number: Option<u64>, grace: Duration) {
        let kill_at = self.clock.now().as_nanos().saturating_add(u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX));
        let Some(child) = self.children.get_mut(&id) else { return };
        let stopping = child.stopping.get_or_insert(Stopping { numbers: Vec::new(), kill_at, told: BTreeSet::new() });
        stopping.numbers.extend(number);
        stopping.kill_at = stopping.kill_at.min(kill_at);
        if grace > Duration::ZERO {
            let _ = kill_process_group(child.pid, raw(child.stop));
            // What is paused heeds nothing until it goes on.
            let members = self.members(id);
            tree::signal(&members, rustix::process::Signal::CONT);
        }
    }

    fn end(&mut self, number: Option<u64>, grace: Duration) {
        if self.ending.is_none() || number.is_some() {
            self.ending = Some(number);
        }
        let ids: Vec<u64> = self.children.keys().copied().collect();
        ids.into_iter().for_each(|id| self.stop(id, None, grace));
    }

    /// Answers for what is gone, and kills what should be.
    fn go_on_stopping(&mut self) {
        let ids: Vec<u64> = self.children.iter().filter(|(_, c)| c.stopping.is_some()).map(|(id, _)| *id).collect();
        for id in ids {
            let now = self.clock.now().as_nanos();
            let due = self.children[&id].stopping.as_ref().is_some_and(|stopping| stopping.kill_at <= now);
            let members = match due {
                // Stopped first, so that none of them starts another that is not seen, or notices that others die.
                true => tree::freeze(|| self.members(id)).0,
                false => self.members(id),
            };
            if due {
                tree::signal(&members, rustix::process::Signal::KILL);
            } else {
                self.tell_the_rest(id, &members);
            }
            self.bury();
            if members.is_empty() && self.children[&id].exit.is_some() {
                let child = self.children.remove(&id).expect("it was there");
                for number in child.stopping.map(|stopping| stopping.numbers).unwrap_or_default() {
                    self.answer(number, Ok(0));
                }
            }
        }
    }

    /// Asks what has outlived its process to end as well: what is in another group has not heard of it.
    fn tell_the_rest(&mut self, id: u64, members: &[tree::Entry]) {
        let Some(Child { exit: Some(_), stopping: Some(stopping), stop, .. }) = self.children.get_mut(&id) else {
            return;
        };
        let rest: Vec<tree::Entry> = members.iter().filter(|entry| stopping.told.insert(entry.key)).copied().collect();
        tree::signal(&rest, raw(*stop));
    }

    /// Asks how those who have died did.
    fn bury(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let found = self.children.iter_mut().find(|(_, child)| child.pid == pid && child.exit.is_none());
            // Others are orphans that came here.
            let Some((id, child)) = found else { continue };
            let code = status.exit_status().map(Exit::Code);
            let exit = code.or(status.terminating_signal().map(Exit::Signal)).unwrap_or(Exit::Lost);
            child.exit = Some(exit);
            let id = *id;
            // Whoever hears of its end asks for its last words. What it has started may go on talking, and is not
            // waited for.
            for _ in 0..WORDS {
                if child.log.is_finished() {
                    break;
                }
                crate::clock::block(Duration::from_millis(1));
            }
            self.say(&Said::Exited { id, exit });
        }
        let _ = self.again.send(());
    }

    fn answer(&mut self, number: u64, result: Result<u32, String>) {
        self.say(&Said::Answer { number, result });
    }

    fn say(&mut self, said: &Said) {
        // Whoever is gone hears nothing, and the end of its socket is an event of its own.
        let _ = say(&mut self.socket, said);
    }
}

fn raw(signal: Signal) -> rustix::process::Signal {
    match signal {
        Signal::Terminate => rustix::process::Signal::TERM,
        Signal::Interrupt => rustix::process::Signal::INT,
        Signal::Quit => rustix::process::Signal::QUIT,
        Signal::Hangup => rustix::process::Signal::HUP,
        Signal::User1 => rustix::process::Signal::USR1,
    }
}
