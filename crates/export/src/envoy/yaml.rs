//! Values as the protobufs behind Envoy's YAML have them.

use std::time::Duration;

use crate::site::Address;
use crate::text::Text;

pub(super) fn address(out: &mut Text, level: usize, address: &Address) {
    out.line(
        level,
        format!(
            "address: {{ socket_address: {{ address: {}, port_value: {} }} }}",
            string(address.host()),
            address.port()
        ),
    );
}

pub(super) fn kind(of: &str) -> String {
    format!("\"@type\": type.googleapis.com/envoy.extensions.{of}")
}

/// A duration as protobuf's JSON has it.
pub(super) fn seconds(duration: Duration) -> String {
    let nanos = duration.subsec_nanos();
    if nanos == 0 {
        return format!("{}s", duration.as_secs());
    }
    let text = format!("{}.{nanos:09}", duration.as_secs());
    format!("{}s", text.trim_end_matches('0'))
}

/// Nanoseconds, as such a duration.
pub(super) fn nanos(nanos: u64) -> String {
    seconds(Duration::from_nanos(nanos))
}

/// A string in double quotes, as YAML and JSON have it.
pub(super) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            // YAML ends lines at these too.
            c if c.is_control() || ['\u{2028}', '\u{2029}', '\u{feff}'].contains(&c) => {
                out.push_str(&format!("\\u{:04X}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_protobufs() {
        for (nanos, expected) in [(5_000_000_000, "5s"), (600_000_000, "0.6s"), (1, "0.000000001s"), (0, "0s")] {
            assert_eq!(seconds(Duration::from_nanos(nanos)), expected);
        }
    }

    #[test]
    fn strings_stay_in_their_quotes() {
        assert_eq!(string("a\"b\\c\n\u{2028}"), r#""a\"b\\c\u000A\u2028""#);
    }
}
