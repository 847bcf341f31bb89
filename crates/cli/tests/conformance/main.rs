//! What the virtual world decides, the gateway decides. A run of the simulation is written down step by step at one
//! gateway: `incoming` is what its policies on what it gets have done, `outgoing` those towards its upstream. What
//! was asked there, with its time and its random bits, is asked of the gateway's own code, and every decision has to
//! be the same.

mod incoming;
mod outgoing;

/// What journals are made with; each failure names it.
const SEED: u64 = 7;
