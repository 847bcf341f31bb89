//! What the virtual world decides, the gateway decides. A run of the simulation is written down step by step at one
//! gateway: `incoming` is what its policies on what it gets have done, `outgoing` those towards its upstream. What
//! was asked there, with its time and its random bits, is asked of the gateway's own code, and every decision has to
//! be the same.

mod incoming;
mod outgoing;

use plimsoll_model::system::System;
use plimsoll_model::{Source, parse};

/// What journals are made with; each failure names it.
const SEED: u64 = 7;

/// Three instances of `api` that fail now and then, with these endpoints.
fn instances(endpoints: &[&str]) -> String {
    let head = "  api:
    at: [127.0.0.1:4001, 127.0.0.1:4002, 127.0.0.1:4003]
    instances: 3
    workers: 6
    queue: 4
    endpoints:
";
    let endpoint = |name: &&str| format!("      {name}: [ {{ work: exp(3ms) }}, {{ fail: 3% }} ]\n");
    head.to_owned() + &endpoints.iter().map(endpoint).collect::<String>()
}

/// One of them stops, one dies, one is slow for a while; `more` keys of the experiment go before that.
fn bad_weather(more: &str) -> String {
    format!(
        "experiments:
  bad-weather:
    for: 20s
{more}    faults:
      - {{ at: 2s, pause: api/2, for: 3s }}
      - {{ at: 7s, kill: api/3, for: 2s }}
      - {{ at: 11s, slow: api/1, by: 20x, for: 4s }}
"
    )
}

/// A gateway's keys, one a line, as deep as they stand.
fn indented(keys: &str) -> String {
    keys.lines().map(|line| format!("    {line}\n")).collect()
}

fn system(text: &str) -> System {
    parse(&Source::alone("conformance.yaml", text)).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}
