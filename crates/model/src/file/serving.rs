//! What only a real process needs: a gateway's addresses, limits and logs, and where the instances
//! of a service are.

use super::filled::Filled;
use super::problem::Report;
use super::quantity::{
    ADDRESS, BYTES, COUNT, DURATION, FIELD_NAME, NETWORK_ADDRESS, NUMBER_OR_ZERO, SOCKET, STATUS, TEXT,
};
use super::table::{Choice, Field, Kind, Object, absent, none, required, value};
use crate::system::{
    AccessLog, Address, Addresses, Balancer, FallbackAnswer, Headers, Limits, LogFormat, NetworkPrefix, Serving, Tls,
};

pub(crate) static SERVING: &[Field] = &[
    value(
        "listen",
        Kind::List(&Kind::Scalar(&SOCKET)),
        "[127.0.0.1:8080]",
        "open to this machine alone",
        "Where `plimsoll gateway` listens. The simulation takes no notice of addresses.",
    ),
    none("tls", Kind::Object(&TLS), "plain HTTP", "Certificate and key for `listen`; HTTP/2 is offered then."),
    none(
        "admin",
        Kind::Scalar(&SOCKET),
        "no address is opened that the file does not name",
        "Where metrics, health and the operators' requests are answered.",
    ),
    none("access_log", Kind::Short(&ACCESS_LOG, "to"), "metrics tell as much", "A line for each request."),
    value("limits", Kind::Object(&LIMITS), "{}", "see there", "Bounds on what a client may cost a real gateway."),
    value("headers", Kind::Object(&HEADERS), "{}", "see there", "Header fields that say who asks and how."),
    value(
        "balancer",
        Kind::Words(&[
            ("plimsoll", "the gateway that `plimsoll gateway` serves"),
            ("nginx", "nginx, configured as `plimsoll export nginx` does"),
            ("haproxy", "HAProxy, configured as `plimsoll export haproxy` does"),
        ]),
        "plimsoll",
        "it does all that the file says",
        "Who stands for it in `plimsoll run`. The simulation does what the file says, whoever it is.",
    ),
    value(
        "trusted",
        Kind::List(&Kind::Scalar(&NETWORK_ADDRESS)),
        "[]",
        "anybody can write a header",
        "Networks of proxies in front: what they say in X-Forwarded-For is believed, and passed on.",
    ),
];

static TLS: Object = Object {
    name: "tls",
    doc: "A certificate and its key, in PEM files, relative to the system file.",
    groups: &[&[
        required("certificate", Kind::Scalar(&TEXT), "The certificate, followed by those between it and an authority."),
        required("key", Kind::Scalar(&TEXT), "Its private key."),
    ]],
};

static ACCESS_LOG: Object = Object {
    name: "access_log",
    doc: "A line for each request. Where it goes may stand alone in place of the mapping.",
    groups: &[&[
        required("to", Kind::Scalar(&TEXT), "`stdout`, `stderr`, or a file, which is opened again on SIGHUP."),
        value(
            "format",
            Kind::Words(&[("json", "one object a line"), ("combined", "nginx's combined, with times")]),
            "json",
            "programs read it",
            "What a line looks like.",
        ),
        value(
            "buffer",
            Kind::Scalar(&COUNT),
            "8192",
            "some tenths of a second at full load",
            "Lines that wait to be written; past it lines are dropped and counted, and no request waits.",
        ),
    ]],
};

static LIMITS: Object = Object {
    name: "gateway_limits",
    doc: "Bounds on what a client may cost a real gateway. The simulation takes no notice of them.",
    groups: &[&[
        value(
            "header_bytes",
            Kind::Scalar(&BYTES),
            "16KiB",
            "HAProxy, tune.bufsize",
            "Bytes of a request's head; more get a 431.",
        ),
        value(
            "header_count",
            Kind::Scalar(&COUNT),
            "100",
            "Apache, LimitRequestFields",
            "Header fields of a request, at most 128; more get a 431.",
        ),
        value(
            "body",
            Kind::Scalar(&BYTES),
            "1MiB",
            "nginx, client_max_body_size",
            "Bytes of a request's body; more get a 413.",
        ),
        value(
            "retry_body",
            Kind::Scalar(&BYTES),
            "64KiB",
            "a form or a JSON document",
            "Bytes of a body that are kept for another attempt; a request with more gets one attempt.",
        ),
        value(
            "header_timeout",
            Kind::Scalar(&DURATION),
            "10s",
            "HAProxy's manual, timeout http-request",
            "From a request's first byte to the end of its head.",
        ),
        value(
            "body_timeout",
            Kind::Scalar(&DURATION),
            "60s",
            "nginx, client_body_timeout",
            "Between two reads or writes of a body.",
        ),
        value(
            "idle",
            Kind::Scalar(&DURATION),
            "75s",
            "nginx, keepalive_timeout",
            "Between two requests of a connection.",
        ),
        value(
            "connect_timeout",
            Kind::Scalar(&DURATION),
            "3s",
            "room for one lost SYN, which is repeated after 1 s",
            "Until a connection to an instance is made.",
        ),
        value(
            "upstream_idle",
            Kind::Scalar(&DURATION),
            "4s",
            "Node's servers close after 5 s",
            "How long a connection to an instance is kept without use: less than the instance keeps it.",
        ),
        value(
            "connections",
            Kind::Scalar(&COUNT),
            "10k",
            "files and memory end somewhere",
            "Connections of clients in all.",
        ),
        value(
            "connections_per_client",
            Kind::Scalar(&COUNT),
            "1k",
            "more than an office has",
            "Connections of one address, those of `trusted` networks aside.",
        ),
    ]],
};

static HEADERS: Object = Object {
    name: "gateway_headers",
    doc: "Header fields by which a real gateway knows who asks and how.",
    groups: &[&[
        none(
            "user",
            Kind::Scalar(&FIELD_NAME),
            "the client's address stands for the user",
            "Names the user: for quotas `per: user` and for balancing by user. Set it in front, or check it behind.",
        ),
        none(
            "class",
            Kind::Scalar(&FIELD_NAME),
            "all requests are of class 0",
            "Holds a request's priority class, 0 to 7, where its endpoint states none.",
        ),
        value(
            "deadline",
            Kind::Scalar(&FIELD_NAME),
            "X-Request-Timeout-Ms",
            "there is no standard",
            "Holds the milliseconds that the caller still waits; the gateway heeds it, and passes on what remains.",
        ),
    ]],
};

/// Where a service's instances are.
pub(crate) static AT: &[Field] = &[absent(
    "at",
    Kind::Or(&[Kind::List(&Kind::Short(&INSTANCE, "address")), Kind::Choice(&FOUND)]),
    "`plimsoll gateway` cannot forward to it; simulations need no addresses",
    "Where its instances are in the real world. The simulation takes no notice of it.",
)];

static INSTANCE: Object = Object {
    name: "instance_address",
    doc: "An instance's address. The address alone may stand in place of the mapping.",
    groups: &[&[
        required("address", Kind::Scalar(&ADDRESS), "A name or an IP address, and a port."),
        value(
            "weight",
            Kind::Scalar(&NUMBER_OR_ZERO),
            "1",
            "instances are alike",
            "Its part of the traffic beside the others', where `balance` has weights; 0 keeps traffic away.",
        ),
    ]],
};

static FOUND: Choice = Choice {
    name: "found_addresses",
    what: "a way to find addresses",
    doc: "Where the addresses of a service's instances are looked up, again and again.",
    options: &[&DNS, &FILE],
};

static DNS: Object = Object {
    name: "dns_addresses",
    doc: "All addresses that a name stands for.",
    groups: &[&[
        required("dns", Kind::Scalar(&ADDRESS), "The name, and the port of all of them."),
        absent(
            "server",
            Kind::Scalar(&SOCKET),
            "those of /etc/resolv.conf",
            "The name server to ask, such as a Consul agent's `127.0.0.1:8600`. /etc/hosts goes before any.",
        ),
        value(
            "every",
            Kind::Scalar(&DURATION),
            "10s",
            "what sources without a TTL need",
            "Between two look-ups at most. A record's TTL that is over sooner is heeded, from a second on.",
        ),
    ]],
};

static FILE: Object = Object {
    name: "file_addresses",
    doc: "The lines of a file: an address each, perhaps with a weight after a space. Lines that start with `#` do not \
          count.",
    groups: &[&[
        required("file", Kind::Scalar(&TEXT), "The file, relative to the system file."),
        value("every", Kind::Scalar(&DURATION), "1s", "soon enough for a person", "Between two looks at it."),
    ]],
};

pub(crate) static FALLBACK_ANSWER: Object = Object {
    name: "fallback_answer",
    doc: "What a route answers where its upstream fails.",
    groups: &[&[
        value("status", Kind::Scalar(&STATUS), "200", "a fallback counts as a success", "The status."),
        value("type", Kind::Scalar(&TEXT), "text/plain", "what the default body is", "Its Content-Type."),
        value("body", Kind::Scalar(&TEXT), "unavailable", "a word that says so", "The body."),
    ]],
};

pub(super) fn serving(gateway: &Filled, report: &mut Report) -> Serving {
    let listen = gateway.get("listen");
    if listen.list().is_empty() && !listen.is_bad() {
        report.at(gateway.place("listen"), "a gateway listens on at least one address".to_owned());
    }
    let limits = gateway.get("limits");
    let count = limits.get("header_count");
    if !count.is_bad() && count.count() > 128 {
        report.mismatch(limits.place("header_count"), "at most 128", &format!("`{}`", count.text()), None);
    }
    let bytes = limits.get("header_bytes");
    if !bytes.is_bad() && !(1 << 10..=1 << 20).contains(&bytes.bytes()) {
        let found = format!("`{}`", bytes.text());
        report.mismatch(limits.place("header_bytes"), "from 1KiB to 1MiB", &found, None);
    }
    let headers = gateway.get("headers");
    let name = |key: &str| headers.get(key).set().map(|name| name.text().to_owned());
    Serving {
        listen: listen.list().iter().filter_map(|address| address.text().parse().ok()).collect(),
        tls: gateway.get("tls").set().map(|tls| Tls {
            certificate: tls.get("certificate").text().to_owned(),
            key: tls.get("key").text().to_owned(),
        }),
        admin: gateway.get("admin").set().and_then(|admin| admin.text().parse().ok()),
        access_log: gateway.get("access_log").set().map(|log| AccessLog {
            to: log.get("to").text().to_owned(),
            format: if log.get("format").text() == "combined" { LogFormat::Combined } else { LogFormat::Json },
            buffer: log.get("buffer").count(),
        }),
        limits: Limits {
            header_bytes: u32::try_from(bytes.bytes()).unwrap_or(u32::MAX),
            header_count: count.count(),
            body_bytes: limits.get("body").bytes(),
            retry_body_bytes: limits.get("retry_body").bytes(),
            header_timeout: limits.get("header_timeout").nanos(),
            body_timeout: limits.get("body_timeout").nanos(),
            idle_timeout: limits.get("idle").nanos(),
            connect_timeout: limits.get("connect_timeout").nanos(),
            upstream_idle: limits.get("upstream_idle").nanos(),
            connections: limits.get("connections").count(),
            connections_per_client: limits.get("connections_per_client").count(),
        },
        headers: Headers {
            user: name("user"),
            class: name("class"),
            deadline: headers.get("deadline").text().to_owned(),
        },
        balancer: match gateway.get("balancer").text() {
            "nginx" => Balancer::Nginx,
            "haproxy" => Balancer::Haproxy,
            _ => Balancer::Plimsoll,
        },
        trusted: gateway.get("trusted").list().iter().filter_map(|text| network(text.text())).collect(),
    }
}

/// `10.0.0.0/8`, or one address.
pub(crate) fn network(text: &str) -> Option<NetworkPrefix> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok().filter(|_| !bits.starts_with('+'))?)),
        None => (text, None),
    };
    let address: std::net::IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some(NetworkPrefix { address, bits })
}

pub(super) fn addresses(service: &Filled, report: &mut Report) -> Option<Addresses> {
    let at = service.maybe("at")?.set().filter(|at| !at.is_bad())?;
    if at.object().is_none() {
        if at.list().is_empty() {
            report.at(at.at, "a service has at least one address".to_owned());
        }
        let address = |instance: &Filled| Address {
            address: instance.get("address").text().to_owned(),
            weight: instance.get("weight").number(),
        };
        return Some(Addresses::List(at.list().iter().map(address).collect()));
    }
    let every = at.get("every").nanos();
    if at.is_a(&DNS) {
        let (host, port) = at.get("dns").text().rsplit_once(':')?;
        let server = at.get("server").set().and_then(|server| server.text().parse().ok());
        return Some(Addresses::Dns { host: host.to_owned(), port: port.parse().ok()?, server, every });
    }
    Some(Addresses::File { path: at.get("file").text().to_owned(), every })
}

/// The command that starts an instance.
pub(super) fn command(service: &Filled, report: &mut Report) -> Option<String> {
    let run = service.maybe("run")?.set().filter(|run| !run.is_bad())?;
    if !run.text().contains("{port}") {
        let found = format!("`{}`", run.text());
        report.mismatch(run.at, "a command with `{port}`, the port that it is to listen on", &found, None);
    }
    if service.maybe("at").is_some_and(|at| at.set().is_some()) {
        let message = "a service that runs elsewhere (`at`) is not started: state `run` or `at`".to_owned();
        report.at(run.at, message);
    }
    Some(run.text().to_owned())
}

pub(super) fn fallback_answer(route: &Filled) -> Option<FallbackAnswer> {
    let answer = route.get("fallback_answer").set()?;
    route.get("fallback").flag().then(|| FallbackAnswer {
        status: answer.get("status").text().parse().unwrap_or(200),
        content_type: answer.get("type").text().to_owned(),
        body: answer.get("body").text().to_owned(),
    })
}
