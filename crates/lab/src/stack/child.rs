//! One process of ours: started with a log of its own, in a process group of its own, gone with us.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child as Os, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::clock;

/// A process.
#[derive(Debug)]
pub struct Child {
    os: Os,
    log: PathBuf,
    gone: Option<String>,
}

impl Child {
    /// Starts a program. What it says goes to the log's end.
    pub fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(String, String)],
        log: PathBuf,
    ) -> std::io::Result<Child> {
        let file = File::options().create(true).append(true).open(&log)?;
        let os = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()?;
        Ok(Child { os, log, gone: None })
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.os.id()
    }

    /// How it ended, if it has.
    pub fn exit(&mut self) -> Option<String> {
        if self.gone.is_none()
            && let Ok(Some(status)) = self.os.try_wait()
        {
            self.gone = Some(status.to_string());
        }
        self.gone.clone()
    }

    fn signal(&self, signal: Signal) {
        if self.gone.is_none()
            && let Ok(pid) = i32::try_from(self.os.id())
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Ends it at once, and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if self.gone.is_none()
            && let Ok(status) = self.os.wait()
        {
            self.gone = Some(status.to_string());
        }
    }

    /// Stops it where it is.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// What the kernel says it does: `R`, `S`, `T` where it is stopped; none if it is gone.
    pub fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.os.id())).ok()?;
        // The name, in parentheses, may have spaces and parentheses of its own.
        stat.rsplit_once(')')?.1.trim_start().chars().next()
    }

    /// Asks it to end, and ends it if it does not.
    pub fn stop(&mut self, grace: Duration) {
        self.resume();
        self.signal(Signal::TERM);
        let clock = clock::Clock::start();
        while self.exit().is_none() && clock.now().as_nanos() < plimsoll_policy::nanos(grace) {
            clock::block(Duration::from_millis(2));
        }
        self.kill();
    }

    /// The last lines that it said.
    pub fn last_words(&self, lines: usize) -> String {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.log) {
            let length = file.metadata().map_or(0, |metadata| metadata.len());
            let _ = file.seek(SeekFrom::Start(length.saturating_sub(4096)));
            let _ = file.read_to_string(&mut text);
        }
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
