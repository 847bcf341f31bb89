//! How busy the machine itself is: a run on one that has nothing left to give says little of the system.

/// A look at the processors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    busy: u64,
    all: u64,
}

/// From here on the machine is the bottleneck.
const FULL: f64 = 0.9;

impl Machine {
    /// Looks. Where the system does not say, nothing is known.
    pub(crate) fn look() -> Machine {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect();
        let all: u64 = ticks.iter().take(8).sum();
        let idle: u64 = ticks.iter().skip(3).take(2).sum();
        Machine { busy: all - idle, all }
    }

    /// The busy share since then, from 0 to 1.
    pub(crate) fn busy_since(self) -> f64 {
        let now = Machine::look();
        let all = now.all.saturating_sub(self.all);
        if all == 0 { 0.0 } else { now.busy.saturating_sub(self.busy) as f64 / all as f64 }
    }

    /// What the reader should know of it.
    pub(crate) fn warning(busy: f64) -> Option<String> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (busy > FULL).then(|| {
            format!(
                "this machine's {processors} processors were {:.0}% busy: the figures say more about it than about the \
                 system",
                busy * 100.0
            )
        })
    }
}

/// Takes as many open files as the system lets this process have: a stalled server can have thousands of connections
/// waiting.
pub(crate) fn many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
