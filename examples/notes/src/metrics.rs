//! What Prometheus asks for: rate, errors and duration by route; pools, breakers and lag.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use prometheus::{GaugeVec, core::Collector};

use crate::app::App;
use crate::store::Kind;

/// Times of requests in seconds, from a cache's to a timeout's.
const BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// All series.
pub struct Metrics {
    registry: Registry,
    /// By method, route and status.
    pub requests: IntCounterVec,
    /// By method and route, to the head of the answer.
    pub durations: HistogramVec,
    /// Requests that have come and are not answered.
    pub in_flight: IntGauge,
    /// By where they came from.
    pub reads: IntCounterVec,
    /// By what was found.
    pub cache: IntCounterVec,
    rejected: IntCounterVec,
    replayed: IntCounter,
    pool: IntGaugeVec,
    breaker: IntGaugeVec,
    lag: GaugeVec,
    lag_bytes: IntGaugeVec,
    up: IntGaugeVec,
    primary: IntGaugeVec,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| {
            keep(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauges =
            |name: &str, help: &str, labels: &[&str]| keep(&registry, IntGaugeVec::new(Opts::new(name, help), labels)?);
        let durations = HistogramOpts::new("notes_request_duration_seconds", "Time to the head of the answer.");
        let durations = durations.buckets(BUCKETS.to_vec());
        let lag = Opts::new("notes_db_lag_seconds", "How old a node's answers are.");
        Ok(Metrics {
            requests: counters("notes_requests_total", "Requests answered.", &["method", "route", "status"])?,
            durations: keep(&registry, HistogramVec::new(durations, &["method", "route"])?)?,
            in_flight: keep(&registry, IntGauge::new("notes_requests_in_flight", "Requests not answered yet.")?)?,
            reads: counters("notes_db_reads_total", "Answers of the database, by who gave them.", &["from"])?,
            cache: counters("notes_cache_total", "Questions to the cache, by what came of them.", &["result"])?,
            rejected: counters("notes_rejected_total", "What a policy has turned away.", &["policy"])?,
            replayed: keep(
                &registry,
                IntCounter::new("notes_idempotency_replayed_total", "Requests answered with the answer of before.")?,
            )?,
            pool: gauges("notes_db_pool", "Connections, and those that wait for one.", &["node", "state"])?,
            breaker: gauges("notes_breaker_state", "0 closed, 1 open, 2 half-open, 3 ramping.", &["target"])?,
            lag: keep(&registry, GaugeVec::new(lag, &["node"])?)?,
            lag_bytes: gauges("notes_db_lag_bytes", "Bytes of the log yet to be replayed.", &["node"])?,
            up: gauges("notes_db_up", "Whether a node answers.", &["node"])?,
            primary: gauges("notes_db_primary", "Whether a node is the primary.", &["node"])?,
            registry,
        })
    }

    /// As text, in the format of Prometheus.
    pub fn render(&self, app: &App) -> Result<Vec<u8>, prometheus::Error> {
        self.look(app);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The text's media type.
    pub fn media_type() -> String {
        TextEncoder::new().format_type().to_owned()
    }

    /// What others count is looked at when somebody asks.
    fn look(&self, app: &App) {
        let cluster = app.store.cluster();
        for (number, node) in cluster.nodes().iter().enumerate() {
            let name = node.address.as_str();
            let status = node.pool();
            for (state, count) in [("open", status.size), ("idle", status.available), ("waiting", status.waiting)] {
                self.pool.with_label_values(&[name, state]).set(count as i64);
            }
            for (kind, target) in [(Kind::Read, "read"), (Kind::Write, "write")] {
                self.breaker(&format!("{target} {name}"), &node.handle(kind));
            }
            self.up.with_label_values(&[name]).set(i64::from(node.seen().is_some()));
            self.primary.with_label_values(&[name]).set(i64::from(cluster.is_primary(number)));
            // A node that says nothing has no lag: an old figure would look like a good one.
            match (cluster.lag(number), cluster.lag_bytes(number)) {
                (Some(lag), Some(bytes)) => {
                    self.lag.with_label_values(&[name]).set(lag.as_secs_f64());
                    self.lag_bytes.with_label_values(&[name]).set(bytes as i64);
                }
                _ => {
                    let _ = self.lag.remove_label_values(&[name]);
                    let _ = self.lag_bytes.remove_label_values(&[name]);
                }
            }
        }
        self.breaker("sessions", &app.redis.handle());
        for (policy, rejected) in app.guards.rejected() {
            raise(&self.rejected.with_label_values(&[policy]), rejected);
        }
        raise(&self.replayed, app.guards.replayed());
    }

    fn breaker(&self, target: &str, handle: &plimsoll_middleware::PipelineHandle) {
        use plimsoll_policy::circuit_breaker::State;
        let snapshot = handle.snapshot();
        let Some(state) = snapshot.breaker_state else { return };
        let state = match state {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
            State::Ramping => 3,
        };
        self.breaker.with_label_values(&[target]).set(state);
        let rejected = snapshot.breaker.map_or(0, |counts| counts.rejected);
        raise(&self.rejected.with_label_values(&[&format!("breaker {target}")]), rejected);
    }
}

/// Brings a counter to where another stands.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn keep<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}
