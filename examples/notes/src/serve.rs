//! From the first connection to the last.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::config::Args;
use crate::routes;

/// Serves until SIGTERM or SIGINT, and then ends what is at work:
///
/// 1. readiness fails and answers say `Connection: close`, while requests are still taken;
/// 2. after `--leave-ms`, when balancers have noticed, the port is closed;
/// 3. what is at work has `--drain-ms` to end.
pub async fn serve(app: Arc<App>, args: &Args) -> io::Result<()> {
    let listener = TcpListener::bind((args.host, args.port)).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    // Without this an answer may wait for the client's acknowledgement of the one before.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(start(app.clone(), args.seed_notes));
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (close, mut closed) = watch::channel(false);
    let until_closed = async move {
        let _ = closed.wait_for(|closed| *closed).await;
    };
    let server = axum::serve(listener, routes::router(&app)).with_graceful_shutdown(until_closed);
    let server = tokio::spawn(server.into_future());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("leaving");
    app.health.leave();
    sleep(Duration::from_millis(args.leave_ms)).await;
    close.send_replace(true);
    match timeout(Duration::from_millis(args.drain_ms), server).await {
        Ok(_) => tracing::info!("all requests are answered"),
        Err(_) => tracing::warn!("requests at work are given up"),
    }
    Ok(())
}

/// The port is open already: whoever asks meanwhile learns that the service lives and is not ready.
async fn start(app: Arc<App>, seed_notes: u32) {
    app.store.start(seed_notes).await;
    app.health.started();
}
