//! One core: where it listens, and how it stops.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::{AbortHandle, LocalSet, spawn_local};

use crate::control::{Control, Phase};
use crate::core::{Core, Shared};
use crate::front::accept::{self, Listening};
use crate::front::open::Open;
use crate::net::listener::refuse_new;

/// What a core is told of where to listen.
#[derive(Debug)]
pub(super) enum Command {
    /// Here too, with this socket.
    Open(SocketAddr, std::net::TcpListener),
    /// Here no more.
    Close(SocketAddr),
}

/// How long a socket that is to be closed goes on accepting connections that had begun before: longer than nearly
/// every way there and back.
const GRACE: Duration = Duration::from_millis(300);

/// The addresses that a core listens on, and the tasks that accept there.
type Sockets = BTreeMap<SocketAddr, (Listening, AbortHandle)>;

/// Accepts and serves until it is told to stop.
pub(super) fn serve(
    index: usize,
    shared: Arc<Shared>,
    mut commands: UnboundedReceiver<Command>,
    mut phases: watch::Receiver<Phase>,
    control: &Control,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return control.say(&format!("core {index} cannot run: {error}")),
    };
    control.add_core(runtime.handle().metrics());
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        let core = Rc::new(Core::new(index, shared));
        let open = Rc::new(Open::default());
        let mut sockets = Sockets::new();
        let sweeping = spawn_local(sweep(core.clone(), open.clone()));
        let (deadline, at_once) = loop {
            if let Phase::Draining { until, at_once } = *phases.borrow_and_update() {
                break (until, at_once);
            }
            match told(&mut phases, &mut commands).await {
                Some(Told::Phase) => {}
                Some(Told::Command(Command::Open(address, socket))) => match TcpListener::from_std(socket) {
                    Ok(listener) => {
                        let listening = Listening { listener: Rc::new(listener), leaving: Rc::new(Cell::new(false)) };
                        let accepting = spawn_local(accept::accept(core.clone(), open.clone(), listening.clone()));
                        sockets.insert(address, (listening, accepting.abort_handle()));
                    }
                    Err(error) => control.say(&format!("core {index} cannot listen on {address}: {error}")),
                },
                Some(Told::Command(Command::Close(address))) => {
                    if let Some((listening, accepting)) = sockets.remove(&address) {
                        spawn_local(close(core.clone(), open.clone(), listening, accepting, GRACE));
                    }
                }
                None => break (core.clock.now(), true),
            }
        };
        let left = Duration::from_nanos(deadline.nanos_since(core.clock.now()) / 5);
        let grace = if at_once { Duration::ZERO } else { GRACE.min(left) };
        let closing: Vec<_> = sockets
            .into_values()
            .map(|(listening, accepting)| spawn_local(close(core.clone(), open.clone(), listening, accepting, grace)))
            .collect();
        for task in closing {
            let _ = task.await;
        }
        sweeping.abort();
        while open.count() > 0 && core.clock.now() < deadline {
            // Whoever has a request waiting takes it up first.
            tokio::task::yield_now().await;
            open.close_idle(true);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        open.close_all();
        tokio::task::yield_now().await;
    });
}

enum Told {
    Phase,
    Command(Command),
}

/// What comes next; none once nobody is there to say anything.
async fn told(phases: &mut watch::Receiver<Phase>, commands: &mut UnboundedReceiver<Command>) -> Option<Told> {
    let mut changed = pin!(phases.changed());
    poll_fn(|cx| {
        if let Poll::Ready(changed) = changed.as_mut().poll(cx) {
            return Poll::Ready(changed.ok().map(|()| Told::Phase));
        }
        commands.poll_recv(cx).map(|command| command.map(Told::Command))
    })
    .await
}

/// Closes a socket so that whoever is on the way to it is served: nothing new begins, what has begun is accepted, and
/// connections from there end as they come to rest.
async fn close(core: Rc<Core>, open: Rc<Open>, listening: Listening, accepting: AbortHandle, grace: Duration) {
    listening.leaving.set(true);
    if !grace.is_zero() && refuse_new(&listening.listener).is_ok() {
        tokio::time::sleep(grace).await;
    }
    accepting.abort();
    accept::accept_waiting(&core, &open, &listening).await;
}

/// Closes connections to instances that nobody has used for long, and those of clients whose address is listened on
/// no more.
async fn sweep(core: Rc<Core>, open: Rc<Open>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let idle = core.current().live.plan.serving.limits.upstream_idle;
        core.pool.sweep(core.clock.now(), idle);
        open.close_idle(false);
    }
}
