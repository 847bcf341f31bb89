//! Notes as users make, read, change and delete them, at two instances that were started at once.

use std::collections::BTreeSet;

use serde_json::Value;

use super::world::with;

#[test]
fn notes_are_made_read_changed_deleted_and_restored() {
    with(0, |world| {
        // Both migrate; an advisory lock lets one at a time do it.
        let (one, two) = (world.launch(&[]), world.launch(&[]));
        [&one, &two].iter().for_each(|notes| notes.until_ready(1));
        assert_eq!(
            world.cluster.value(0, "SELECT string_agg(number::text, ',' ORDER BY number) FROM migrations").unwrap(),
            "1,2,3"
        );

        let ada = [("x-user-id", "ada"), ("x-request-id", "made-by-ada")];
        let made = one.ask("POST", "/notes", &ada, r#"{"title": " First ", "body": "Text"}"#).expect(201);
        let id = made.id();
        let path = format!("/notes/{id}");
        assert_eq!(made.header("location"), path);
        let note = made.json();
        assert_eq!((&note["title"], &note["body"]), (&"First".into(), &"Text".into()));
        assert_eq!((&note["author"], &note["version"]), (&"ada".into(), &1.into()));
        assert_eq!(two.get(&path).expect(200).json(), note);

        let bob = [("x-user-id", "bob"), ("if-match", "\"1\""), ("x-request-id", "changed-by-bob")];
        let changed = two.ask("PUT", &path, &bob, r#"{"title": "Second"}"#).expect(200);
        assert_eq!((changed.header("etag"), &changed.json()["body"]), ("\"2\"", &"".into()));
        assert_eq!(one.get(&path).expect(200).json(), changed.json());
        let late = one.ask("PUT", &path, &bob, r#"{"title": "Third"}"#).expect(412);
        assert_eq!(late.json()["title"], "the note is at version 2");

        two.ask("DELETE", &path, &ada, "").expect(204);
        for notes in [&one, &two] {
            assert_eq!(notes.get(&path).expect(404).header("content-type"), "application/problem+json");
            assert_eq!(notes.get("/notes").expect(200).json()["items"], Value::Array(Vec::new()));
        }
        two.ask("DELETE", &path, &ada, "").expect(404);
        assert_eq!(one.ask("POST", &format!("{path}/restore"), &ada, "").expect(200).json()["title"], "Second");
        assert_eq!(two.get(&path).expect(200).json()["version"], 4);

        let activity = two.get(&format!("{path}/activity")).expect(200).json();
        let said: Vec<(&str, &str, &str)> = activity["items"]
            .as_array()
            .expect("entries")
            .iter()
            .map(|entry| (entry["action"].as_str(), entry["actor"].as_str(), entry["request_id"].as_str()))
            .map(|(action, actor, request)| (action.unwrap(), actor.unwrap(), request.unwrap()))
            .collect();
        assert_eq!(
            said,
            [
                ("restored", "ada", "made-by-ada"),
                ("deleted", "ada", "made-by-ada"),
                ("updated", "bob", "changed-by-bob"),
                ("created", "ada", "made-by-ada"),
            ]
        );
    });
}

#[test]
fn lists_are_read_page_by_page_and_what_is_wrong_is_refused() {
    with(0, |world| {
        let notes = world.start(&["--seed-notes", "45"]);
        let (mut path, mut seen, mut pages) = ("/notes".to_owned(), Vec::new(), 0);
        loop {
            let page = notes.get(&path).expect(200).json();
            seen.extend(page["items"].as_array().expect("items").iter().map(|note| note["id"].as_i64().unwrap()));
            pages += 1;
            // What comes meanwhile moves nothing.
            notes.note("meanwhile", &[]);
            let Some(next) = page["next"].as_str() else { break };
            path = next.to_owned();
        }
        assert_eq!((pages, seen.len()), (3, 45));
        assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
        assert_eq!(notes.get("/activity?limit=2").expect(200).json()["items"].as_array().map(Vec::len), Some(2));

        let long = format!(r#"{{"title": "", "body": "{}"}}"#, "x".repeat(10_001));
        let invalid = notes.ask("POST", "/notes", &[], &long).expect(422).json();
        let fields: Vec<&str> =
            invalid["errors"].as_array().expect("errors").iter().map(|e| e["field"].as_str().unwrap()).collect();
        assert_eq!(fields, ["title", "body"]);
        notes.ask("POST", "/notes", &[], "{").expect(400);
        notes.ask("POST", "/notes", &[], r#"{"title": "a", "color": "red"}"#).expect(400);
        notes.ask("POST", "/notes", &[("content-type", "text/plain")], "a").expect(415);
        notes.ask("POST", "/notes", &[], &"x".repeat(200_000)).expect(413);
        notes.ask("POST", "/notes", &[("x-user-id", "a b")], "").expect(400);
        notes.ask("PUT", "/notes/1", &[("if-match", "1")], r#"{"title": "a"}"#).expect(400);
        notes.ask("PUT", "/notes/999999", &[], r#"{"title": "a"}"#).expect(404);
        notes.ask("PATCH", "/notes/1", &[], "").expect(405);
        for path in ["/notes/999999", "/notes/x", "/nothing"] {
            notes.get(path).expect(404);
        }
        for path in ["/notes?limit=0", "/notes?before=x", "/activity?offset=1"] {
            notes.get(path).expect(400);
        }
        // A new note needs no contents yet.
        assert_eq!(notes.ask("POST", "/notes", &[], "").expect(201).json()["title"], "Untitled");
    });
}

#[test]
fn a_repeated_request_makes_one_note_at_whichever_instance() {
    with(0, |world| {
        let (one, two) = (world.start(&[]), world.start(&[]));
        let headers = [("x-user-id", "ada"), ("idempotency-key", "\"7d1c\"")];
        let first = one.note("once", &headers);
        assert_eq!(first.header("idempotent-replayed"), "");
        for notes in [&one, &two, &two] {
            let again = notes.note("once", &headers);
            assert_eq!((again.id(), again.header("idempotent-replayed")), (first.id(), "true"));
        }
        for notes in [&one, &two] {
            notes.ask("POST", "/notes", &headers, r#"{"title": "other"}"#).expect(422);
        }
        // Somebody else's key is another.
        let bob = two.note("once", &[("x-user-id", "bob"), ("idempotency-key", "\"7d1c\"")]);
        let all = one.get("/notes").expect(200).json();
        let ids: BTreeSet<i64> =
            all["items"].as_array().expect("items").iter().map(|note| note["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, BTreeSet::from([first.id(), bob.id()]));
        // From many at once, one note too.
        let made: BTreeSet<i64> = std::thread::scope(|scope| {
            let key = [("x-user-id", "eve"), ("idempotency-key", "same")];
            let (one, two) = (&one, &two);
            let asks: Vec<_> = (0..8)
                .map(|n| scope.spawn(move || [one, two][n % 2].ask("POST", "/notes", &key, r#"{"title": "same"}"#)))
                .collect();
            let answers = asks.into_iter().map(|ask| ask.join().expect("an answer"));
            // 409: the first is at work.
            let done = answers.filter(|answer| answer.status != 409).map(|answer| answer.expect(201).id());
            done.collect()
        });
        assert_eq!(made.len(), 1, "{made:?}");
    });
}

#[test]
fn a_session_says_who_writes() {
    with(0, |world| {
        let (one, two) = (world.start(&[]), world.start(&[]));
        let begun = one.ask("POST", "/sessions", &[], r#"{"user": "grace"}"#).expect(201);
        let cookie = [("cookie", begun.cookies[0].as_str())];
        assert_eq!(two.ask("GET", "/sessions/current", &cookie, "").json()["user"], "grace");
        assert_eq!(two.note("mine", &cookie).json()["author"], "grace");
        one.ask("DELETE", "/sessions/current", &cookie, "").expect(204);
        assert_eq!(two.ask("GET", "/sessions/current", &cookie, "").json()["user"], "anonymous");
        one.ask("POST", "/sessions", &[], r#"{"user": "a b"}"#).expect(422);
    });
}
