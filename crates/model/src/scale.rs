//! The same system under another load.

use std::sync::Arc;

use crate::system::{Arrivals, Load, System};

impl System {
    /// Multiplies every client's load, those that experiments give included: open rates and users
    /// of closed loops by `factor`, recorded arrivals come `factor` times as fast. The factor is
    /// above 0; a closed loop keeps at least one user.
    pub fn scale_load(&mut self, factor: f64) {
        for client in &mut self.clients {
            match &mut client.arrivals {
                Arrivals::Open { rate, .. } => *rate *= factor,
                Arrivals::Closed { users, .. } => *users = scaled(*users, factor),
                Arrivals::Trace { times, span } => {
                    let faster = |time: u64| (time as f64 / factor).round() as u64;
                    *times = times.iter().map(|time| faster(*time)).collect::<Arc<[u64]>>();
                    *span = faster(*span).max(1);
                }
            }
        }
        for (_, load) in self.experiments.iter_mut().flat_map(|experiment| &mut experiment.load) {
            match load {
                Load::Rate(rate) => *rate *= factor,
                Load::Ramp(from, to) => {
                    *from *= factor;
                    *to *= factor;
                }
                Load::Steps(rates) => rates.iter_mut().for_each(|rate| *rate *= factor),
                Load::Users(users) => *users = scaled(*users, factor),
            }
        }
    }
}

/// A count times a factor, to the nearest whole number, at least 1.
pub(crate) fn scaled(count: u32, factor: f64) -> u32 {
    // `as` saturates at both ends.
    ((f64::from(count) * factor).round() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use crate::system::{Arrivals, Load};
    use crate::{Source, parse};

    #[test]
    fn scales_each_kind_of_load() {
        let text = "
system: loads
clients:
  open: { rate: 100/s, calls: [ api GET / ] }
  closed: { users: 5, think: 1s, calls: [ api GET / ] }
  recorded: { arrivals: trace(t.csv), calls: [ api GET / ] }
services:
  api: { endpoints: { GET /: [ { work: 1ms } ] } }
experiments:
  e: { load: { open: \"10/s..20/s\", closed: { users: 1 } } }
";
        let read = |_: &str| Ok(b"0\n1\n3\n".to_vec());
        let mut system = parse(&Source { name: "t.yaml", bytes: text.as_bytes(), read: &read }).unwrap();
        system.scale_load(0.5);
        let Arrivals::Open { rate, .. } = system.clients[0].arrivals else { panic!("open") };
        assert_eq!(rate, 50.0);
        let Arrivals::Closed { users, .. } = system.clients[1].arrivals else { panic!("closed") };
        assert_eq!(users, 3);
        let Arrivals::Trace { times, span } = &system.clients[2].arrivals else { panic!("trace") };
        assert_eq!((&times[..], *span), (&[0, 2_000_000_000, 6_000_000_000][..], 9_000_000_000));
        let loads: Vec<&Load> = system.experiments[0].load.iter().map(|(_, load)| load).collect();
        assert_eq!(loads, [&Load::Ramp(5.0, 10.0), &Load::Users(1)]);
    }
}
