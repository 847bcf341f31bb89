//! Reads from replicas that are behind.

use super::world::{until, with};

#[test]
fn sessions_read_what_they_wrote_and_any_replica_does_not_have_it() {
    with(1, |world| {
        let (heeds, any) = (world.start(&["--max-lag-ms", "60000"]), world.start(&["--any-replica"]));
        let ada = [("x-user-id", "ada")];
        let known = heeds.note("known", &ada).id();
        world.catch_up();
        until("reads come from the replica", || heeds.get("/notes").header("x-notes-from") == "replica");

        world.cluster.pause_replay(1).expect("paused");
        let written = heeds.note("new", &ada);
        let id = written.id();
        let listed =
            |answer: &super::http::Answer| answer.json()["items"].as_array().unwrap().iter().any(|n| n["id"] == id);
        // The user's place is in Redis, so any instance knows it; without a name the cookie does.
        let cookie = [("cookie", written.cookies[0].as_str())];
        for headers in [&ada[..], &cookie[..]] {
            let own = heeds.ask("GET", "/notes", headers, "").expect(200);
            assert_eq!(own.header("x-notes-from"), "primary", "{own:?}");
            assert!(listed(&own));
        }
        // Others may be behind, and this replica is within the lag that is allowed.
        let others = heeds.ask("GET", "/notes", &[("x-user-id", "bob")], "").expect(200);
        assert_eq!((others.header("x-notes-from"), listed(&others)), ("replica", false));
        // The control: the session does not see its own note.
        let stale = any.ask("GET", "/notes", &ada, "").expect(200);
        assert_eq!((stale.header("x-notes-from"), listed(&stale)), ("replica", false));

        // An entry of the cache that is older than the session's write is no answer to it either.
        assert_eq!(
            heeds.ask("GET", &format!("/notes/{known}"), &ada, "").expect(200).header("x-notes-from"),
            "primary"
        );
        assert_eq!(heeds.ask("GET", &format!("/notes/{id}"), &ada, "").expect(200).header("x-notes-from"), "cache");

        world.cluster.resume_replay(1).expect("resumed");
        world.catch_up();
        until("the session reads from the replica again", || {
            let own = heeds.ask("GET", "/notes", &ada, "").expect(200);
            own.header("x-notes-from") == "replica" && listed(&own)
        });
    });
}

#[test]
fn a_replica_that_lags_too_much_is_not_read_from() {
    with(1, |world| {
        let notes = world.start(&["--max-lag-ms", "200"]);
        notes.note("known", &[]);
        world.catch_up();
        until("reads come from the replica", || notes.get("/notes").header("x-notes-from") == "replica");
        world.cluster.pause_replay(1).expect("paused");
        notes.note("new", &[]);
        until("reads come from the primary", || notes.get("/notes").header("x-notes-from") == "primary");
        let replica = format!("notes_db_lag_seconds{{node=\"{}\"}}", world.cluster.address(1));
        until("the lag shows", || notes.sample(&replica).is_some_and(|lag| lag > 0.2));
        world.cluster.resume_replay(1).expect("resumed");
        until("and back", || notes.get("/notes").header("x-notes-from") == "replica");
        until("the lag is gone", || notes.sample(&replica) == Some(0.0));
    });
}
