//! All proxies, and what can be asked of them. Nothing here waits for a connection.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plimsoll_model::draw::Draw;
use tokio::sync::watch;

use super::config::{Config, Installed, More};
use super::connection::Counts;
use super::json::{Addition, Change, NewProxy, ToxicChange};
use super::listener::Listener;
use super::toxic::{Stream, Toxic};
use super::{Env, Refusal};

/// Proxies by name.
#[derive(Debug)]
pub struct Set {
    draw: Draw,
    runtime: tokio::runtime::Handle,
    env: Arc<Env>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    proxies: BTreeMap<String, Proxy>,
    /// For toxics and epochs.
    next: u64,
    closed: bool,
}

#[derive(Debug)]
struct Proxy {
    /// As asked for, until it listens; then where it does.
    listen: String,
    upstream: String,
    listener: Option<Listener>,
    toxics: Vec<Arc<Installed>>,
    config: watch::Sender<Arc<Config>>,
    counts: Arc<Counts>,
}

/// A proxy as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// Where it listens, or would.
    pub listen: String,
    /// Where it connects to.
    pub upstream: String,
    /// Whether it listens.
    pub enabled: bool,
    /// What it does, in the order in which it was asked for.
    pub toxics: Vec<Toxic>,
}

/// What has gone through a proxy since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Connections of clients.
    pub accepted: u64,
    /// Those that are open.
    pub open: u64,
    /// Those whose server could not be reached.
    pub unreached: u64,
    /// Bytes handed on to the server.
    pub up_bytes: u64,
    /// Bytes handed on to clients.
    pub down_bytes: u64,
}

fn not_found(what: &str) -> Refusal {
    Refusal { status: 404, message: format!("{what} not found") }
}

fn exists(what: &str) -> Refusal {
    Refusal { status: 409, message: format!("{what} already exists") }
}

impl Set {
    pub(super) fn new(seed: u64, runtime: tokio::runtime::Handle, env: Arc<Env>) -> Set {
        Set { draw: Draw::root(seed, 0), runtime, env, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All proxies, by name.
    pub fn all(&self) -> Vec<Shown> {
        self.state().proxies.iter().map(|(name, proxy)| proxy.shown(name)).collect()
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Result<Shown, Refusal> {
        Ok(self.state().find(name)?.shown(name))
    }

    /// What has gone through it.
    pub fn figures(&self, name: &str) -> Result<Figures, Refusal> {
        let counts = self.state().find(name)?.counts.clone();
        let load = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        Ok(Figures {
            accepted: load(&counts.accepted),
            open: load(&counts.open),
            unreached: load(&counts.unreached),
            up_bytes: load(&counts.up_bytes),
            down_bytes: load(&counts.down_bytes),
        })
    }

    /// Creates a proxy. Its toxics are on before its first connection.
    pub fn create(&self, new: NewProxy) -> Result<Shown, Refusal> {
        let mut state = self.state();
        if state.proxies.contains_key(&new.name) {
            return Err(exists("proxy"));
        }
        self.put(&mut state, new)
    }

    /// Creates proxies, or puts them in the place of those with the same name that listen or connect elsewhere.
    /// Returns those that are as they should be, and why the next is not.
    pub fn populate(&self, all: Vec<NewProxy>) -> (Vec<Shown>, Option<Refusal>) {
        let mut done = Vec::new();
        for new in all {
            let mut state = self.state();
            let put = match state.proxies.get_mut(&new.name) {
                Some(there) if there.listens_at(&new.listen) && there.upstream == new.upstream => {
                    let name = new.name.clone();
                    match new.toxics {
                        Some(toxics) => state.replace_toxics(&name, toxics).map(|()| state.proxies[&name].shown(&name)),
                        None => Ok(there.shown(&name)),
                    }
                }
                _ => self.put(&mut state, new),
            };
            match put {
                Ok(shown) => done.push(shown),
                Err(refusal) => return (done, Some(refusal)),
            }
        }
        (done, None)
    }

    fn put(&self, state: &mut State, new: NewProxy) -> Result<Shown, Refusal> {
        if state.closed {
            return Err(Refusal { status: 503, message: "the proxies are being closed".to_owned() });
        }
        let toxics = new.toxics.unwrap_or_default();
        let mut names: Vec<&str> = toxics.iter().map(|toxic| toxic.name.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(exists("toxic"));
        }
        if let Some(mut old) = state.proxies.remove(&new.name) {
            old.take_down(&mut state.next);
        }
        let mut proxy = Proxy {
            listen: new.listen,
            upstream: new.upstream,
            listener: None,
            toxics: state.install(toxics),
            config: watch::channel(Arc::default()).0,
            counts: Arc::default(),
        };
        proxy.publish(&mut state.next, true);
        if new.enabled {
            self.listen(&mut proxy, &new.name)?;
        }
        let shown = proxy.shown(&new.name);
        state.proxies.insert(new.name, proxy);
        Ok(shown)
    }

    fn listen(&self, proxy: &mut Proxy, name: &str) -> Result<(), Refusal> {
        let draw = self.draw.named(name);
        let Proxy { listen, config, counts, .. } = &*proxy;
        let opened = Listener::open(listen, &self.runtime, &self.env, counts, config, draw);
        let listener =
            opened.map_err(|error| Refusal { status: 500, message: format!("cannot listen on {listen}: {error}") })?;
        proxy.listen = listener.address().to_string();
        proxy.listener = Some(listener);
        Ok(())
    }

    /// Changes where a proxy listens or connects to, or whether it does. Connections are closed where either
    /// changes.
    pub fn update(&self, name: &str, change: Change) -> Result<Shown, Refusal> {
        let mut state = self.state();
        let State { proxies, next, .. } = &mut *state;
        let proxy = proxies.get_mut(name).ok_or_else(|| not_found("proxy"))?;
        let listen = change.listen.unwrap_or_else(|| proxy.listen.clone());
        let upstream = change.upstream.unwrap_or_else(|| proxy.upstream.clone());
        let enabled = change.enabled.unwrap_or(proxy.listener.is_some());
        if let Some(toxics) = change.toxics {
            let same = toxics.len() == proxy.toxics.len()
                && toxics.iter().all(|toxic| proxy.toxics.iter().any(|there| there.toxic == *toxic));
            if !same {
                return Err(Refusal::bad(format!("toxics are changed at /proxies/{name}/toxics")));
            }
        }
        if !proxy.listens_at(&listen) || proxy.upstream != upstream {
            proxy.take_down(next);
            proxy.listen = listen;
            proxy.upstream = upstream;
            proxy.publish(next, true);
        }
        match (enabled, proxy.listener.is_some()) {
            (true, false) => self.listen(proxy, name)?,
            (false, true) => proxy.take_down(next),
            _ => {}
        }
        Ok(proxy.shown(name))
    }

    /// Removes a proxy with its connections.
    pub fn delete(&self, name: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        let mut proxy = state.proxies.remove(name).ok_or_else(|| not_found("proxy"))?;
        proxy.take_down(&mut state.next);
        Ok(())
    }

    /// Enables all proxies, and removes all toxics.
    pub fn reset(&self) -> Result<(), Refusal> {
        let mut state = self.state();
        let mut failed = Ok(());
        let State { proxies, next, .. } = &mut *state;
        for (name, proxy) in proxies {
            // First of all, and whatever else fails: what is on ends.
            proxy.toxics.clear();
            proxy.publish(next, false);
            if proxy.listener.is_none() {
                failed = failed.and(self.listen(proxy, name));
            }
        }
        failed
    }

    /// One toxic of a proxy.
    pub fn toxic(&self, name: &str, toxic: &str) -> Result<Toxic, Refusal> {
        let shown = self.get(name)?;
        shown.toxics.into_iter().find(|there| there.name == toxic).ok_or_else(|| not_found("toxic"))
    }

    /// Of the chunks that came while a toxic was on: how many it was asked about, and how many it did something to.
    pub fn effect(&self, name: &str, toxic: &str) -> Result<(u64, u64), Refusal> {
        let state = self.state();
        let there = state.find(name)?.toxics.iter().find(|there| there.toxic.name == toxic);
        let there = there.ok_or_else(|| not_found("toxic"))?;
        Ok((there.asked.load(Ordering::Relaxed), there.struck.load(Ordering::Relaxed)))
    }

    /// Adds a toxic, after those that are there.
    pub fn add(&self, name: &str, addition: Addition) -> Result<Toxic, Refusal> {
        self.get(name)?;
        self.add_more(name, addition.toxic()?, More::None)
    }

    /// The same for what a run's faults do.
    pub fn add_more(&self, name: &str, toxic: Toxic, more: More) -> Result<Toxic, Refusal> {
        let mut state = self.state();
        if state.find(name)?.toxics.iter().any(|there| there.toxic.name == toxic.name) {
            return Err(exists("toxic"));
        }
        state.next += 1;
        let installed = Arc::new(Installed::new(state.next, toxic.clone(), more));
        let State { proxies, next, .. } = &mut *state;
        let proxy = proxies.get_mut(name).ok_or_else(|| not_found("proxy"))?;
        proxy.toxics.push(installed);
        proxy.publish(next, false);
        Ok(toxic)
    }

    /// Changes a toxic's attributes or toxicity.
    pub fn change(&self, name: &str, toxic: &str, change: &ToxicChange) -> Result<Toxic, Refusal> {
        let mut state = self.state();
        let State { proxies, next, .. } = &mut *state;
        let proxy = proxies.get_mut(name).ok_or_else(|| not_found("proxy"))?;
        let there = proxy.toxics.iter_mut().find(|there| there.toxic.name == toxic);
        let there = there.ok_or_else(|| not_found("toxic"))?;
        let changed = change.apply(&there.toxic)?;
        *there = Arc::new(Installed::new(there.id, changed.clone(), there.more.clone()));
        proxy.publish(next, false);
        Ok(changed)
    }

    /// Removes a toxic.
    pub fn remove(&self, name: &str, toxic: &str) -> Result<(), Refusal> {
        let mut state = self.state();
        let State { proxies, next, .. } = &mut *state;
        let proxy = proxies.get_mut(name).ok_or_else(|| not_found("proxy"))?;
        let at = proxy.toxics.iter().position(|there| there.toxic.name == toxic);
        proxy.toxics.remove(at.ok_or_else(|| not_found("toxic"))?);
        proxy.publish(next, false);
        Ok(())
    }

    /// Closes everything, for good.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        let State { proxies, next, .. } = &mut *state;
        proxies.values_mut().for_each(|proxy| proxy.take_down(next));
        proxies.clear();
    }
}

impl State {
    fn find(&self, name: &str) -> Result<&Proxy, Refusal> {
        self.proxies.get(name).ok_or_else(|| not_found("proxy"))
    }

    fn install(&mut self, toxics: Vec<Toxic>) -> Vec<Arc<Installed>> {
        let install = |toxic| {
            self.next += 1;
            Arc::new(Installed::new(self.next, toxic, More::None))
        };
        toxics.into_iter().map(install).collect()
    }

    fn replace_toxics(&mut self, name: &str, toxics: Vec<Toxic>) -> Result<(), Refusal> {
        let installed = self.install(toxics);
        let proxy = self.proxies.get_mut(name).ok_or_else(|| not_found("proxy"))?;
        let same = installed.iter().map(|new| &new.toxic).eq(proxy.toxics.iter().map(|old| &old.toxic));
        if !same {
            proxy.toxics = installed;
            proxy.publish(&mut self.next, false);
        }
        Ok(())
    }
}

impl Proxy {
    fn shown(&self, name: &str) -> Shown {
        Shown {
            name: name.to_owned(),
            listen: self.listen.clone(),
            upstream: self.upstream.clone(),
            enabled: self.listener.is_some(),
            toxics: self.toxics.iter().map(|installed| installed.toxic.clone()).collect(),
        }
    }

    /// Whether this is where it listens, or would, in other words perhaps.
    fn listens_at(&self, listen: &str) -> bool {
        let mut addresses = std::net::ToSocketAddrs::to_socket_addrs(listen).into_iter().flatten();
        self.listen == listen || addresses.any(|address| address.to_string() == self.listen)
    }

    /// Tells connections what is on; those of before are closed where it is a new epoch.
    fn publish(&mut self, next: &mut u64, new_epoch: bool) {
        let of = |stream: Stream| self.toxics.iter().filter(|toxic| toxic.toxic.stream == stream).cloned().collect();
        let mut epoch = self.config.borrow().epoch;
        if new_epoch {
            *next += 1;
            epoch = *next;
        }
        let config =
            Config { epoch, upstream: self.upstream.clone(), up: of(Stream::Upstream), down: of(Stream::Downstream) };
        let cut = config.is_cut();
        // Shut before anybody is told, opened before those who accept are woken.
        if let Some(listener) = &self.listener {
            let _ = listener.cut(cut);
        }
        self.config.send_replace(Arc::new(config));
    }

    fn take_down(&mut self, next: &mut u64) {
        if let Some(listener) = self.listener.take() {
            listener.close();
        }
        self.publish(next, true);
    }
}
