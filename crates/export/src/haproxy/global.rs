//! The process: what it may hold, how it ends, what it writes down.

use std::time::Duration;

use crate::gateway::{Gateway, LONGEST, Upstream};
use crate::site::Files;
use crate::text::{Text, number, percent, short};

/// HAProxy's own answers have some fields, without which it does not start.
const FEWEST_FIELDS: u32 = 16;
/// HAProxy keeps an answer's headers beside its body.
pub(super) const HEADERS: u64 = 1_024;

pub(super) fn global(out: &mut Text, gateway: &Gateway) {
    let service = gateway.service;
    out.note(
        0,
        format!(
            "The gateway `{}` of the system `{}` for HAProxy, as version 2.6 in Debian 12 understands it. Every number is \
             the system file's. What HAProxy cannot do is said where it would stand, by its key in the system file.",
            service.name, gateway.system.name
        ),
    );
    out.gap();
    out.line(0, "global");
    match &gateway.site.files {
        Files::Package => {
            out.line(1, "user haproxy");
            out.line(1, "group haproxy");
            out.line(1, "chroot /var/lib/haproxy");
            out.line(1, "stats socket /run/haproxy/admin.sock mode 660 level admin");
        }
        Files::Directory(directory) => {
            out.line(1, format!("stats socket '{}/haproxy.sock' mode 600 level admin", directory.as_str()));
        }
    }
    let logged = logs(out, gateway);
    let limits = &gateway.serving.limits;
    out.note(
        1,
        "`limits.header_bytes`, and the 1 KiB that HAProxy keeps free for headers of its own; past it 400. `retry_body`: \
             what fits in there can be sent again.",
    );
    out.line(1, format!("tune.bufsize {}", u64::from(limits.header_bytes) + HEADERS));
    out.note(1, "`limits.header_count`; answers are held to it too, HAProxy's own among them.");
    out.line(1, format!("tune.http.maxhdr {}", limits.header_count.max(FEWEST_FIELDS)));
    out.note(
        1,
        format!("`cores`. `instances`: {}, each a HAProxy of its own that counts for itself.", service.instances),
    );
    out.line(1, format!("nbthread {}", service.cores.clamp(1, 64)));
    out.note(1, "`drain`: how long a process that was told to stop may go on with what it has.");
    let drain = Duration::from_nanos(service.drain).max(Duration::from_millis(1));
    out.line(1, format!("hard-stop-after {}", short(drain, LONGEST)));
    let jitters = gateway.upstreams.iter().filter_map(Upstream::health).map(|health| health.config.jitter);
    let jitter = jitters.fold(0.0, f64::max);
    if jitter > 0.0 {
        out.note(1, format!("`health.jitter` {}: HAProxy's goes to 50%, and is one for all.", percent(jitter)));
        out.line(1, format!("spread-checks {}", number((jitter * 100.0).round().min(50.0))));
    }
    out.gap();
    out.line(0, "defaults");
    out.line(1, "mode http");
    if logged {
        out.line(1, "log global");
        out.line(1, "option httplog");
    }
    out.note(1, "Connections are kept, and shared once they have served a request.");
    out.line(1, "http-reuse safe");
    if service.stops_when_cancelled {
        out.note(1, "`stops_when_cancelled`");
        out.line(1, "option abortonclose");
    }
}

/// Where lines go, and whether there are any.
fn logs(out: &mut Text, gateway: &Gateway) -> bool {
    let Some(to) = &gateway.log else {
        out.note(1, "`access_log: none`");
        return false;
    };
    out.note(1, "`access_log`: in HAProxy's own format; `format` and `buffer` play no part.");
    match to.as_str() {
        "stdout" | "stderr" => out.line(1, format!("log {to} format raw local0")),
        path => {
            out.note(1, format!("`access_log.to` {path}: HAProxy writes no files. A syslog daemon does."));
            out.line(1, "log /dev/log local0");
        }
    }
    true
}
