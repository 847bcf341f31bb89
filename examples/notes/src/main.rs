//! The reference service: what a backend looks like that has Plimsoll's policies in it.
//!
//! Start to read at `routes/notes.rs`, what a request does; `guards.rs` has the layers around it, `store` and `cache`
//! what it stands on. `README.md` has a tour.
#![allow(clippy::disallowed_methods, reason = "a service reads its own clock and environment")]
#![allow(unreachable_pub, reason = "a program's modules say what they are for, and nobody is outside")]

mod app;
mod cache;
mod config;
mod guards;
mod health;
mod logs;
mod metrics;
mod observe;
mod problem;
mod routes;
mod serve;
mod session;
mod store;

use std::process::ExitCode;
use std::sync::Arc;

use app::App;
use config::Args;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::read();
    logs::start(&args.instance, args.log);
    let done = match App::new(&args) {
        Ok(app) => serve::serve(Arc::new(app), &args).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "it cannot serve");
            ExitCode::from(2)
        }
    }
}
