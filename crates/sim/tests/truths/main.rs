//! What is known about queues, retries and caches, and what the simulation must therefore find: from
//! a system file to the figures of its run, within four standard errors of the truth.
//!
//! A truth is a closed form, a published measurement or an argument that needs no simulation. One
//! file each; [`mutants`] shows that they fail where something is wrong.

mod adaptive_retry;
mod backoff;
mod check;
mod closed_network;
mod coalescing;
mod collapse;
mod connections;
mod determinism;
mod erlang;
mod fan_out;
mod gradient2;
mod hedging;
mod hysteresis;
mod little;
mod mutants;
mod pause_collapse;
mod pollaczek_khinchine;
mod retries;
mod scalability;
mod supermarket;
mod weights;
