//! Component models: how each kind of component behaves. All state is in [`World`](crate::world::World);
//! each file adds its own part to it.

pub(crate) mod autoscale;
pub(crate) mod cache;
pub(crate) mod client;
pub(crate) mod coalesce;
pub(crate) mod consumer;
pub(crate) mod degradation;
pub(crate) mod deploy;
pub(crate) mod edge;
pub(crate) mod instance;
pub(crate) mod lease;
pub(crate) mod members;
pub(crate) mod pending;
pub(crate) mod postgres;
pub(crate) mod quorum;
pub(crate) mod redis;
pub(crate) mod service;
pub(crate) mod store;
pub(crate) mod task;
pub(crate) mod timer;
pub(crate) mod topic;
