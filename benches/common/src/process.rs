//! Processes: what they use, and their end.

use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that ends with this one, however this one ends: the kernel sends it a signal then
/// (`setpriv --pdeathsig`), and it is told to go when the value is dropped.
pub struct Process {
    child: Child,
    /// The signal that takes its own children along.
    signal: &'static str,
}

impl Process {
    /// Starts a program. `signal` ends it and all that it has started.
    pub fn start(signal: &'static str, program: &str, arguments: &[&str], log: &str) -> io::Result<Process> {
        let log = fs::File::create(log)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", signal, "--", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Process { child, signal })
    }

    /// Sends a signal to it alone.
    pub fn signal(&self, signal: &str) {
        let _ = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
    }

    /// It and its children, such as nginx's workers.
    fn all(&self) -> Vec<u32> {
        let parent = self.child.id();
        let mut all = vec![parent];
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            // "pid (name) state parent": the name may have anything in it but is the last with a parenthesis.
            let found = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
            if found == Some(parent) {
                all.push(pid);
            }
        }
        all
    }

    /// CPU time that all its threads have used, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        let tasks =
            self.all().into_iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten());
        let used = |task: fs::DirEntry| -> Option<u64> {
            fs::read_to_string(task.path().join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
        };
        tasks.flatten().filter_map(used).sum()
    }

    /// Memory that it has, in bytes.
    pub fn rss(&self) -> u64 {
        let of = |pid: u32| -> Option<u64> {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
            let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        self.all().into_iter().filter_map(of).sum::<u64>() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process takes nothing in but SIGKILL.
        self.signal("CONT");
        self.signal(self.signal);
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if since.elapsed() > Duration::from_secs(3) {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
