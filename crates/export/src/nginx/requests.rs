//! What stands before any server: the process, its journal, and what is known of a request.

use std::time::Duration;

use plimsoll_model::system::LogFormat;

use super::limits::by_user;
use super::{Location, MOST_FILES};
use crate::gateway::Gateway;
use crate::site::Files;
use crate::text::{Text, quoted, short};

pub(super) fn head(out: &mut Text, gateway: &Gateway) {
    let service = gateway.service;
    out.note(
        0,
        format!(
            "The gateway `{}` of the system `{}` for nginx, as its open-source version 1.22 in Debian 12 understands it. \
             Every number is the system file's. What nginx cannot do is said where it would stand, by its key in the \
             system file.",
            service.name, gateway.system.name
        ),
    );
    out.gap();
    if gateway.site.files == Files::Package {
        out.line(0, "user www-data;");
    }
    out.note(
        0,
        format!("`cores`. `instances`: {}, each an nginx of its own that counts for itself.", service.instances),
    );
    out.line(0, format!("worker_processes {};", service.cores));
    out.note(0, "`drain`: how long a worker that was told to stop may go on with what it has.");
    // Zero means "without end" to nginx.
    let drain = Duration::from_nanos(service.drain).max(Duration::from_millis(1));
    out.line(0, format!("worker_shutdown_timeout {};", short(drain, Duration::MAX)));
    match &gateway.site.files {
        Files::Package => {
            out.line(0, "pid /run/nginx.pid;");
            out.line(0, "error_log /var/log/nginx/error.log;");
        }
        Files::Directory(directory) => {
            out.line(0, format!("pid \"{}/nginx.pid\";", directory.as_str()));
            out.line(0, format!("error_log \"{}/error.log\";", directory.as_str()));
        }
    }
    out.gap();
    out.note(
        0,
        format!(
            "`limits.connections` {} of clients, and for each of `max_in_flight` {} one to an instance and perhaps a file for \
             its body. One worker may have them all.",
            gateway.serving.limits.connections, service.max_in_flight
        ),
    );
    let in_flight = u64::from(service.max_in_flight);
    let connections = u64::from(gateway.serving.limits.connections) + in_flight;
    out.line(0, format!("worker_rlimit_nofile {};", (connections + in_flight).clamp(64, MOST_FILES)));
    out.line(0, "events {");
    out.line(1, format!("worker_connections {};", connections.clamp(32, MOST_FILES)));
    out.line(0, "}");
}

pub(super) fn journal(out: &mut Text, gateway: &Gateway) {
    if let Files::Directory(directory) = &gateway.site.files {
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            out.line(1, format!("{kind}_temp_path \"{}/{kind}\";", directory.as_str()));
        }
    }
    let (Some(to), Some(log)) = (&gateway.log, &gateway.serving.access_log) else {
        out.note(1, "`access_log: none`");
        out.line(1, "access_log off;");
        return;
    };
    let format = match log.format {
        LogFormat::Combined => {
            "log_format access '$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
             \"$http_referer\" \"$http_user_agent\" $request_time $upstream_addr $upstream_response_time';"
        }
        LogFormat::Json => {
            "log_format access escape=json '{\"time\":\"$time_iso8601\",\"client\":\"$remote_addr\",\"request\":\"$request\",\
             \"status\":$status,\"bytes\":$body_bytes_sent,\"seconds\":$request_time,\"instance\":\"$upstream_addr\",\
             \"instance_seconds\":\"$upstream_response_time\"}';"
        }
    };
    out.note(1, format!("`access_log.buffer` {}: nginx writes lines as they come.", log.buffer));
    out.line(1, format);
    let to = match to.as_str() {
        "stdout" | "stderr" => format!("/dev/{to}"),
        path => format!("\"{path}\""),
    };
    out.line(1, format!("access_log {to} access;"));
}

/// From a request to its endpoint, and from that to its location.
pub(super) fn requests(out: &mut Text, gateway: &Gateway, locations: &[Location]) {
    out.gap();
    if gateway.endpoints.len() > 500 {
        out.line(1, format!("map_hash_max_size {};", gateway.endpoints.len().saturating_mul(4)));
    }
    out.note(1, "Which endpoint a request is for, by its method and path; the first that matches.");
    out.line(1, "map \"$request_method $uri\" $endpoint {");
    for (number, endpoint) in (1..).zip(&gateway.endpoints) {
        out.note(2, endpoint.name);
        let methods = match endpoint.pattern.methods.as_slice() {
            [] => "[A-Z]+".to_owned(),
            [one] => one.clone(),
            several => format!("(?:{})", several.join("|")),
        };
        out.line(2, format!("\"~^{methods} {}$\" {number};", endpoint.pattern.regex()));
    }
    if !gateway.unmatched.is_empty() {
        out.note(2, format!("No method and path to match: {}.", quoted(gateway.unmatched.iter().copied())));
    }
    out.line(2, "default \"\";");
    out.line(1, "}");
    out.line(1, "map $endpoint $location {");
    for (number, endpoint) in (1..).zip(&gateway.endpoints) {
        let location = Location::of(endpoint, &gateway.upstreams[endpoint.upstream]);
        let at = locations.iter().position(|other| *other == location).expect("each has one");
        out.line(2, format!("{number} {};", Location::name(gateway, locations, at)));
    }
    out.line(2, "default @none;");
    out.line(1, "}");
    if by_user(gateway) {
        out.gap();
        match &gateway.user_header {
            Some(header) => {
                out.note(1, "`headers.user`: a user; without it, the client's address.");
                let variable = format!("$http_{}", header.as_str().to_ascii_lowercase().replace('-', "_"));
                out.line(1, format!("map {variable} $user {{"));
                out.line(2, "\"\" $remote_addr;");
                out.line(2, format!("default {variable};"));
                out.line(1, "}");
            }
            None => {
                out.note(1, "`headers.user: none`: a user is the client's address.");
                out.line(1, "map $remote_addr $user {");
                out.line(2, "default $remote_addr;");
                out.line(1, "}");
            }
        }
    }
    trusted(out, gateway);
}

/// Whose word on the client's address is taken.
fn trusted(out: &mut Text, gateway: &Gateway) {
    let networks = &gateway.serving.trusted;
    if networks.is_empty() {
        return;
    }
    out.gap();
    out.note(1, "`trusted`: what these say of the client's address is believed, and passed on.");
    for network in networks {
        out.line(1, format!("set_real_ip_from {}/{};", network.address, network.bits));
    }
    out.line(1, "real_ip_header X-Forwarded-For;");
    out.line(1, "real_ip_recursive on;");
    out.line(1, "geo $realip_remote_addr $trusted {");
    for network in networks {
        out.line(2, format!("{}/{} 1;", network.address, network.bits));
    }
    out.line(2, "default 0;");
    out.line(1, "}");
    out.line(1, "map $trusted $forwarded_for {");
    out.line(2, "1 \"$http_x_forwarded_for, $realip_remote_addr\";");
    out.line(2, "default $remote_addr;");
    out.line(1, "}");
}
