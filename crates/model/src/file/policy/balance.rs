//! `balance: least_connections`, or `balance: { algorithm: p2c, ewma_decay: 10s }`

use plimsoll_policy::Balancer;
use plimsoll_policy::balance::{Algorithm, Config};

use super::refused;
use crate::file::filled::Filled;
use crate::file::problem::Report;
use crate::file::quantity::{COUNT, DURATION, DURATION_OR_ZERO, NUMBER_OR_ZERO, NUMBER_POSITIVE};
use crate::file::table::{Kind, Object, none, value};

const ENVOY: &str = "Envoy";
const LINKERD: &str = "linkerd2-proxy";

pub(crate) static BALANCE: Object = Object {
    name: "balance",
    doc: "Which instance of the target is asked. The algorithm alone may stand in place of the mapping.",
    groups: &[&[
        value(
            "algorithm",
            Kind::Words(ALGORITHMS),
            "round_robin",
            "nginx, Envoy and HAProxy",
            "The algorithm that decides.",
        ),
        none(
            "shadow",
            Kind::Words(ALGORITHMS),
            "nothing to compare with",
            "An algorithm that is asked and counted but not obeyed.",
        ),
        value(
            "weights",
            Kind::List(&Kind::Scalar(&NUMBER_OR_ZERO)),
            "[]",
            "all alike",
            "Weight of each instance of the target, in the order of their numbers; further instances begin the list again. \
             An instance of weight 3 gets three times the requests of one of weight 1, one of 0 none.",
        )
        .when(|b| !uses(b, &["round_robin"]), "where the algorithm is not `round_robin`, which knows none"),
        value("ring_points_min", Kind::Scalar(&COUNT), "1024", "Envoy, minimum_ring_size", "Ring: the fewest points.")
            .when(|b| uses(b, &["ring"]), "where an algorithm is `ring`"),
        value("ring_points_max", Kind::Scalar(&COUNT), "4096", "shares within about 10%", "Ring: the most points.")
            .when(|b| uses(b, &["ring"]), "where an algorithm is `ring`"),
        value("maglev_slots", Kind::Scalar(&COUNT), "65537", ENVOY, "Maglev: slots of the table, a prime.")
            .when(|b| uses(b, &["maglev"]), "where an algorithm is `maglev`"),
        value(
            "bounded_load",
            Kind::OrNone(&Kind::Scalar(&NUMBER_POSITIVE)),
            "1.25",
            "HAProxy, hash-balance-factor 125",
            "Ring and Maglev: an instance holds at most this many times its fair share of the requests in flight.",
        )
        .when(|b| uses(b, &["ring", "maglev"]), "where an algorithm is `ring` or `maglev`"),
        value(
            "choices",
            Kind::Scalar(&COUNT),
            "2",
            "Mitzenmacher: the second choice gains most",
            "P2C: random instances that are compared, from 1 (any) to 10.",
        )
        .when(|b| uses(b, &["p2c"]), "where an algorithm is `p2c`"),
        value(
            "ewma_seed",
            Kind::Scalar(&DURATION),
            "30ms",
            LINKERD,
            "P2C: the latency assumed of an instance that has not answered yet.",
        )
        .when(|b| uses(b, &["p2c"]), "where an algorithm is `p2c`"),
        value(
            "ewma_decay",
            Kind::Scalar(&DURATION),
            "10s",
            LINKERD,
            "P2C: the time over which latencies are forgotten.",
        )
        .when(|b| uses(b, &["p2c"]), "where an algorithm is `p2c`"),
        value(
            "failure_penalty",
            Kind::Scalar(&DURATION_OR_ZERO),
            "5s",
            LINKERD,
            "P2C: what a failure without `Retry-After` counts for.",
        )
        .when(|b| uses(b, &["p2c"]), "where an algorithm is `p2c`"),
    ]],
};

const ALGORITHMS: &[(&str, &str)] = &[
    ("round_robin", "each in turn"),
    ("weighted", "smooth weighted round robin, by `weights`, less during a slow start"),
    ("least_connections", "the fewest requests in flight"),
    ("ip_hash", "by the user's address: sticky, and most users move when an instance comes or goes"),
    ("ring", "by the request's key on a consistent-hash ring with bounded load"),
    ("maglev", "by the request's key in Maglev's table with bounded load"),
    ("p2c", "the best of `choices` random ones, by latency and requests in flight"),
];

/// Whether a balancer asks one of these, to obey it or to compare.
fn uses(balance: &Filled, words: &[&str]) -> bool {
    ["algorithm", "shadow"].iter().any(|key| words.contains(&balance.get(key).text()))
}

fn algorithm(word: &str) -> Algorithm {
    match word {
        "weighted" => Algorithm::Weighted,
        "least_connections" => Algorithm::LeastConnections,
        "ip_hash" => Algorithm::IpHash,
        "ring" => Algorithm::Ring,
        "maglev" => Algorithm::Maglev,
        "p2c" => Algorithm::P2c,
        _ => Algorithm::RoundRobin,
    }
}

pub(crate) fn balance(filled: &Filled, report: &mut Report) -> Config {
    let config = Config {
        algorithm: algorithm(filled.get("algorithm").text()),
        shadow: filled.get("shadow").set().map(|shadow| algorithm(shadow.text())),
        ring_points_min: filled.get("ring_points_min").count(),
        ring_points_max: filled.get("ring_points_max").count(),
        maglev_slots: filled.get("maglev_slots").count(),
        bounded_load: filled.get("bounded_load").set().map_or(f64::INFINITY, |bound| bound.number()),
        choices: filled.get("choices").count(),
        ewma_seed: filled.get("ewma_seed").duration(),
        ewma_decay: filled.get("ewma_decay").duration(),
        failure_penalty: filled.get("failure_penalty").duration(),
    };
    refused(Balancer::new(config.clone(), 1, 0), filled, &[], report);
    config
}

/// The weights of the target's instances: each within what a balancer takes, and not all zero.
pub(crate) fn weights(filled: &Filled, target: &str, instances: u32, report: &mut Report) -> Vec<f64> {
    let list = filled.get("weights").list();
    let weights: Vec<f64> = list.iter().map(Filled::number).collect();
    if let Some(extra) = list.get(instances as usize) {
        let plural = if instances == 1 { "" } else { "s" };
        let message = format!("`{target}` has {instances} instance{plural}, and here are {} weights", list.len());
        report.at(extra.at, message);
    } else if let Some(heavy) = list.iter().find(|weight| weight.number() > WEIGHT_MAX) {
        report.at(heavy.at, format!("a weight is at most {WEIGHT_MAX}"));
    } else if !list.is_empty() && weights.iter().all(|weight| *weight == 0.0) && !list.iter().any(Filled::is_bad) {
        report.at(filled.place("weights"), "all weights are 0: nobody would be asked".to_owned());
    }
    weights
}

/// The most that [`Balancer::set_weight`] takes.
const WEIGHT_MAX: f64 = 1e6;

#[cfg(test)]
mod tests {
    use super::super::tests::decode;
    use super::*;

    #[test]
    fn the_tables_defaults_are_the_policys() {
        assert_eq!(decode("{}", &BALANCE, balance).unwrap(), Config::default());
    }
}
