//! What a client of the fault proxies sends: done or refused with a status and a reason, without a panic, and what
//! it says of a toxic can be said to it. Nothing listens: a proxy that would is asked for as one that is down.
#![no_main]

use std::sync::LazyLock;

use http::Method;
use libfuzzer_sys::fuzz_target;
use plimsoll_lab::proxy::{Proxies, answer};
use serde_json::{Value, json};

static PROXIES: LazyLock<Proxies> = LazyLock::new(|| Proxies::start(1, None).expect("threads"));

fuzz_target!(|bytes: &[u8]| {
    let set = PROXIES.set();
    let ask = |method: Method, path: &str, body: &[u8]| {
        let (status, answer) = answer(set, &method, path, body);
        assert!(answer.as_ref().is_none_or(|answer| (status < 400) == answer.get("error").is_none()), "{answer:?}");
        (status, answer.unwrap_or_default())
    };
    let create = json!({ "name": "p", "upstream": "127.0.0.1:9", "enabled": false }).to_string();
    ask(Method::POST, "/proxies", create.as_bytes());
    let (status, toxic) = ask(Method::POST, "/proxies/p/toxics", bytes);
    if status == 200 {
        let shown = toxic.to_string();
        let name = toxic["name"].as_str().unwrap_or_default().replace('%', "%25");
        let path = format!("/proxies/p/toxics/{name}");
        let (status, same) = ask(Method::PATCH, &path, shown.as_bytes());
        assert!(status == 200 && same == toxic, "{shown}: {same}");
        assert_eq!(ask(Method::DELETE, &path, b"").0, 204);
    }
    ask(Method::PATCH, "/proxies/p/toxics/none", bytes);
    // Anything else that makes sense may listen: only what is certain not to is let through.
    let listens = |value: &Value| value.get("enabled") != Some(&Value::Bool(false));
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Array(list)) if list.iter().any(listens) => {}
        Ok(value @ Value::Object(_)) if listens(&value) => {}
        _ => {
            ask(Method::POST, "/proxies", bytes);
            ask(Method::POST, "/populate", bytes);
        }
    }
    for proxy in set.all() {
        let _ = set.delete(&proxy.name);
    }
});
