//! Stores that are gone.

use super::world::{until, with};

#[test]
fn a_lost_primary_is_followed_by_another_and_reads_go_on() {
    with(2, |world| {
        let (one, two) = (world.start(&[]), world.start(&[]));
        let id = one.note("before", &[]).id();
        world.catch_up();
        world.cluster.kill(0).expect("killed");
        for notes in [&one, &two] {
            until("it notices", || notes.get("/health/readiness").json()["answering"] == 2);
            assert_eq!(notes.get("/health/readiness").expect(200).json()["status"], "degraded");
            let refused = notes.ask("POST", "/notes", &[], "").expect(503);
            assert!(refused.header("retry-after").parse::<u64>().is_ok(), "{refused:?}");
            let list = notes.get("/notes").expect(200);
            assert_eq!(list.json()["items"][0]["id"], id);
        }
        // Many of them open the breaker, which then answers by itself.
        until("the breaker opens", || {
            one.ask("POST", "/notes", &[], "").expect(503);
            one.sample(&format!("notes_breaker_state{{target=\"write {}\"}}", world.cluster.address(0))) == Some(1.0)
        });
        let next = world.cluster.most_advanced().expect("a replica");
        world.cluster.promote(next).expect("promoted");
        for notes in [&one, &two] {
            until("writes resume", || notes.ask("POST", "/notes", &[], r#"{"title": "after"}"#).status == 201);
        }
        world.cluster.rejoin(0).expect("rejoined");
        world.catch_up();
        one.until_ready(3);
        until("all three serve again", || {
            let list = two.get("/notes").expect(200);
            list.header("x-notes-from") == "replica" && list.json()["items"][0]["title"] == "after"
        });
        assert_eq!(one.get("/health/readiness").expect(200).json()["status"], "ready");
    });
}

#[test]
fn without_a_database_notes_come_from_their_copies() {
    with(0, |world| {
        let notes = world.start(&[]);
        let known = notes.note("known", &[]).id();
        let (path, lost) = (format!("/notes/{known}"), format!("/notes/{}", known + 1));
        // The entry that is an answer goes, the copy stays.
        world.redis.ask(&["DEL", &format!("note:{known}")], super::world::LONG).expect("an answer");
        world.cluster.kill(0).expect("killed");
        until("it notices", || notes.get("/health/readiness").status == 503);
        let read = format!("notes_breaker_state{{target=\"read {}\"}}", world.cluster.address(0));
        until("the breaker opens", || {
            let copy = notes.get(&path).expect(200);
            assert_eq!((copy.header("x-notes-from"), &copy.json()["title"]), ("fallback", &"known".into()));
            notes.sample(&read) == Some(1.0)
        });
        assert_eq!(notes.get(&path).expect(200).header("x-notes-from"), "fallback");
        let refused = notes.get(&lost).expect(503);
        assert_ne!(refused.header("retry-after"), "");
        notes.get("/notes").expect(503);
        notes.get("/health/liveness").expect(200);
        assert!(notes.sample("notes_db_reads_total{from=\"fallback\"}") >= Some(2.0));
        world.cluster.restart(0).expect("started");
        until("it is back", || notes.get(&lost).status == 404 && notes.ask("POST", "/notes", &[], "").status == 201);
    });
}

#[test]
fn without_redis_it_reads_and_writes() {
    with(1, |world| {
        let notes = world.start(&[]);
        let ada = [("x-user-id", "ada")];
        let id = notes.note("before", &ada).id();
        world.catch_up();
        world.redis.kill().expect("killed");
        assert_eq!(notes.get("/health/readiness").expect(200).json()["status"], "degraded");
        let path = format!("/notes/{id}");
        assert!(["replica", "primary"].contains(&notes.get(&path).expect(200).header("x-notes-from")));
        // Nobody knows what ada has written: only the primary surely has it.
        let written = notes.note("after", &ada);
        let own = notes.ask("GET", "/notes", &ada, "").expect(200);
        assert_eq!((own.header("x-notes-from"), &own.json()["items"][0]["id"]), ("primary", &written.id().into()));
        notes.ask("POST", "/sessions", &[], r#"{"user": "ada"}"#).expect(503);
        until("the breaker opens", || {
            notes.get(&path).expect(200);
            notes.sample("notes_breaker_state{target=\"sessions\"}") == Some(1.0)
        });
        notes.get(&path).expect(200);
        world.redis.restart().expect("started");
        until("the cache is back", || notes.get(&path).expect(200).header("x-notes-from") == "cache");
        notes.ask("POST", "/sessions", &[], r#"{"user": "ada"}"#).expect(201);
    });
}
