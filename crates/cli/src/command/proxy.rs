use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use plimsoll_gateway::signals::{Signal, Signals};
use plimsoll_lab::proxy::{Change, DEFAULT_API, Proxies, configure};

use crate::exit::Exit;

/// Serve TCP proxies that delay, throttle, cut and reset connections, with Toxiproxy's API
#[derive(clap::Args, Debug)]
pub(crate) struct Proxy {
    /// Where programs ask for proxies and toxics; port 0 is any that is free
    #[arg(long, value_name = "ADDRESS", default_value = DEFAULT_API)]
    listen: SocketAddr,
    /// Proxies to begin with: a JSON list, as for POST /populate
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where all chance comes from: jitter, loss, toxicity, the sizes of slices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Proxy {
    pub(super) fn run(self) -> anyhow::Result<Exit> {
        let config = match &self.config {
            None => None,
            Some(path) => Some(std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?),
        };
        let signals = Signals::listen().context("signals")?;
        let proxies = Proxies::start(self.seed, Some(self.listen))
            .with_context(|| format!("cannot listen on {}", self.listen))?;
        if let (Some(config), Some(path)) = (config, &self.config) {
            configure(proxies.set(), &config).with_context(|| path.display().to_string())?;
        }
        for proxy in proxies.set().all() {
            let state = if proxy.enabled { "" } else { " (down)" };
            eprintln!("{} on {} leads to {}{state}", proxy.name, proxy.listen, proxy.upstream);
        }
        let api = proxies.api().context("the API")?;
        eprintln!("proxies are controlled on {api}, with seed {}", self.seed);
        loop {
            match signals.next(Duration::from_secs(3600)) {
                Some(Signal::Terminate | Signal::Interrupt) => break,
                Some(Signal::Hangup | Signal::User1) | None => {}
            }
        }
        signals.exit_on_next();
        for proxy in proxies.set().all() {
            let _ = proxies.set().update(&proxy.name, Change::enable(false));
        }
        Ok(Exit::Held)
    }
}
