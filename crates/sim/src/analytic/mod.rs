//! Closed forms: what queueing theory says about a system before anything is simulated.
//!
//! One formula a file. The simulation is held to them in its tests, and the search for the load line
//! starts from [`bottleneck`], which adds up what one request takes of every resource.

mod allen_cunneen;
mod demand;
mod erlang;
mod hit_ratio;
mod hold;
mod k_of_n;
mod mva;
mod pollaczek_khinchine;
mod retry;
mod supermarket;
mod usl;
mod walk;

pub use allen_cunneen::allen_cunneen;
pub use demand::{Bound, Demand, bottleneck, demands};
pub use erlang::{Mmc, erlang_b, erlang_c};
pub use k_of_n::at_least;
pub use mva::{Closed, EXACT_SERVERS, Station, mva};
pub use pollaczek_khinchine::pollaczek_khinchine;
pub use retry::{amplification, attempts, failures, vulnerable_above};
pub use supermarket::supermarket;
pub use usl::{usl, usl_peak};

/// Compares to so many digits after the point.
#[cfg(test)]
fn digits(got: f64, expect: f64, after: i32) {
    let tolerance = 0.5000001 * 10f64.powi(-after);
    assert!((got - expect).abs() <= tolerance, "{got} is not {expect} to {after} digits");
}
