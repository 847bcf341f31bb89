//! `plimsoll export`. What nginx, HAProxy and Envoy make of it is tested in `crates/export`.

use crate::{Folder, SMALL};

/// A gateway before the small system's service.
fn with_gateway() -> Folder {
    let folder = Folder::new();
    let text = SMALL.replace("api GET /", "edge GET /").replace(
        "services:\n",
        "services:\n  edge: { kind: gateway, upstream: api, balance: least_connections }\n  edge-2: { kind: gateway, upstream: api }\n",
    );
    folder.write("two.yaml", &text);
    folder.write("one.yaml", text.replace("  edge-2: { kind: gateway, upstream: api }\n", ""));
    folder
}

#[test]
fn each_proxy_has_its_configuration() {
    let folder = with_gateway();
    for (proxy, line) in [
        ("nginx", "        least_conn;"),
        ("haproxy", "    balance leastconn"),
        ("envoy", "      lb_policy: LEAST_REQUEST"),
    ] {
        let text = folder.run(["export", proxy, "one.yaml"]).with(0).out;
        assert!(text.lines().any(|other| other == line), "{proxy}: no line\n{line}\nin\n{text}");
        assert!(text.contains("api-1") && text.contains("api-2") && text.contains("8080"), "{text}");
        assert_eq!(folder.run(["export", proxy, "two.yaml", "edge"]).with(0).out, text);
        assert_ne!(folder.run(["export", proxy, "two.yaml", "edge-2"]).with(0).out, text);
    }
}

#[test]
fn addresses_are_the_users() {
    let folder = with_gateway();
    let arguments = ["--listen", "127.0.0.1:81", "--upstream", "api=127.0.0.1:9001,[::1]:9002"];
    let export = |proxy: &'static str, more: &[&str]| {
        let all = ["export", proxy, "one.yaml"].into_iter().chain(arguments).chain(more.iter().copied());
        folder.run(all).with(0).out
    };
    let nginx = export("nginx", &["--directory", "/srv/edge"]);
    for part in ["listen 127.0.0.1:81;", "server 127.0.0.1:9001 ", "server [::1]:9002 ", "pid \"/srv/edge/nginx.pid\";"]
    {
        assert!(nginx.contains(part), "no {part} in\n{nginx}");
    }
    let haproxy = export("haproxy", &[]);
    for part in ["bind 127.0.0.1:81\n", "server api-2 [::1]:9002\n"] {
        assert!(haproxy.contains(part), "no {part} in\n{haproxy}");
    }
    assert!(export("envoy", &[]).contains("address: \"127.0.0.1\", port_value: 81 }"));
}

/// What the file says of the real world holds where the command says nothing; its paths are relative to it.
#[test]
fn addresses_of_the_file_hold() {
    let folder = with_gateway();
    let text = folder.read("one.yaml").replace(
        "kind: gateway,",
        "kind: gateway, listen: [\"127.0.0.1:83\"], tls: { certificate: edge.pem, key: edge.key },",
    );
    folder.write("at.yaml", text.replace("  api:\n", "  api:\n    at: [ 10.0.0.1:90, 10.0.0.2:91 ]\n"));
    folder.write("file.yaml", text.replace("  api:\n", "  api:\n    at: { file: api.txt }\n"));
    let nginx = folder.run(["export", "nginx", "at.yaml"]).with(0).out;
    let certificate = std::fs::canonicalize(folder.path("at.yaml")).unwrap().with_file_name("edge.pem");
    for part in [
        "listen 127.0.0.1:83 ssl http2;",
        &format!("ssl_certificate \"{}\";", certificate.display()),
        "server 10.0.0.1:90 ",
        "server 10.0.0.2:91 ",
    ] {
        assert!(nginx.contains(part), "no {part} in\n{nginx}");
    }
    folder.run(["export", "nginx", "file.yaml"]).refused("the addresses of `api` are in a file");
    folder.run(["export", "nginx", "file.yaml", "--upstream", "api=10.0.0.1:90"]).with(0);
}

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let folder = with_gateway();
    let printed = folder.run(["export", "envoy", "one.yaml"]).with(0).out;
    let written = folder.run(["export", "envoy", "one.yaml", "--output", "envoy.yaml"]).with(0);
    assert_eq!((written.out.as_str(), written.err.as_str()), ("", "wrote envoy.yaml\n"));
    assert_eq!(folder.read("envoy.yaml"), printed);
    folder.run(["export", "envoy", "one.yaml", "--output", "missing/envoy.yaml"]).refused("missing/envoy.yaml");
    folder.run(["export", "envoy", "two.yaml", "--output", "none.yaml"]).refused("several gateways");
    assert_eq!(folder.names(), ["envoy.yaml", "one.yaml", "two.yaml"]);
}

#[test]
fn what_is_wrong_is_said() {
    let folder = with_gateway();
    folder.write("small.yaml", SMALL);
    for (arguments, why) in [
        (
            &["small.yaml"][..],
            "small.yaml: the system has no gateway to export: expected a service with `kind: gateway` beside `api`",
        ),
        (&["two.yaml"], "two.yaml: the system has several gateways: name one of `edge` and `edge-2`"),
        (&["two.yaml", "egde"], "two.yaml: there is no gateway `egde`: expected `edge` and `edge-2`"),
        (&["two.yaml", "api"], "`api` is a plain service, no gateway: expected `edge` and `edge-2`"),
        (&["one.yaml", "--upstream", "apy=a:1"], "the gateway `edge` does not lead to `apy`: expected `api`"),
        (&["one.yaml", "--upstream", "api=a:1", "--upstream", "api=b:1"], "--upstream api is given twice"),
        (&["one.yaml", "--upstream", "api"], "expected a service and its addresses"),
        (&["one.yaml", "--upstream", "api=a:1,b"], "expected a host and a port, such as 10.0.0.1:8080"),
        (&["one.yaml", "--listen", "80"], "expected a host and a port"),
        (&["one.yaml", "--directory", "here"], "expected the absolute path of a directory"),
        (&["none.yaml"], "none.yaml: cannot be read"),
    ] {
        folder.run(["export", "nginx"].iter().chain(arguments)).refused(why);
    }
    folder.run(["export", "envoy", "one.yaml", "--directory", "/srv"]).refused("--directory plays no part for Envoy");
    folder.run(["export", "apache", "one.yaml"]).refused("possible values: nginx, haproxy, envoy");
    folder.run(["export", "nginx"]).refused("<FILE>");
}
