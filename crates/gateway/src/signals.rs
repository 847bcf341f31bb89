//! The signals that a gateway's process heeds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP: reload.
    Hangup,
    /// SIGUSR1: open the log anew.
    User1,
    /// SIGTERM: stop gracefully.
    Terminate,
    /// SIGINT: the same without the part in which only readiness fails.
    Interrupt,
}

/// Signals as they come.
#[derive(Debug)]
pub struct Signals {
    signals: Receiver<Signal>,
    exit: Arc<AtomicBool>,
}

impl Signals {
    /// Starts to listen: from now on they no longer end the process by themselves.
    pub fn listen() -> io::Result<Signals> {
        let (sender, signals) = channel();
        let (ready, started) = channel();
        let exit = Arc::new(AtomicBool::new(false));
        let exits = exit.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                let kinds = [
                    SignalKind::hangup(),
                    SignalKind::user_defined1(),
                    SignalKind::terminate(),
                    SignalKind::interrupt(),
                ];
                let opened: io::Result<Vec<_>> = kinds.into_iter().map(signal).collect();
                let mut streams = match opened {
                    Ok(streams) => {
                        let _ = ready.send(Ok(()));
                        streams
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                        return;
                    }
                };
                loop {
                    let which = std::future::poll_fn(|cx| {
                        let ready = streams.iter_mut().position(|stream| stream.poll_recv(cx).is_ready());
                        ready.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
                    })
                    .await;
                    let signal = [Signal::Hangup, Signal::User1, Signal::Terminate, Signal::Interrupt][which];
                    if exits.load(Ordering::Relaxed) && which >= 2 {
                        std::process::exit(130);
                    }
                    if sender.send(signal).is_err() {
                        return;
                    }
                }
            });
        })?;
        started.recv().map_err(io::Error::other)??;
        Ok(Signals { signals, exit })
    }

    /// The next signal, if one comes in time.
    pub fn next(&self, wait: Duration) -> Option<Signal> {
        self.signals.recv_timeout(wait).ok()
    }

    /// Another SIGTERM or SIGINT ends the process at once.
    pub fn exit_on_next(&self) {
        self.exit.store(true, Ordering::Relaxed);
    }
}
