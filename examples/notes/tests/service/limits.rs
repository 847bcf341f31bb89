//! More than it takes, and a table that is locked.

use super::world::{until, with};

#[test]
fn over_its_quota_it_says_when_to_come_back() {
    with(0, |world| {
        let (few, all) = (world.start(&["--quota", "10"]), world.start(&["--quota", "10", "--no-quota"]));
        let mut refused = None;
        for _ in 0..50 {
            all.get("/notes").expect(200);
        }
        until("it refuses", || {
            refused = Some(few.get("/notes")).filter(|answer| answer.status == 429);
            refused.is_some()
        });
        let refused = refused.expect("a refusal");
        assert_eq!(refused.header("ratelimit-policy"), "\"default\";q=10;w=1");
        assert!(refused.header("ratelimit").starts_with("\"default\";r=0"), "{refused:?}");
        assert_eq!(refused.header("retry-after"), "1");
        // Operators are answered all the same.
        assert!(few.sample("notes_rejected_total{policy=\"quota\"}") >= Some(1.0));
        few.get("/health/readiness").expect(200);
    });
}

/// Writes wait for a migration's lock, as many as there may be. Reads have workers of their own with the bulkhead, and
/// none without.
#[test]
fn writes_that_wait_leave_reads_their_workers() {
    with(1, |world| {
        let few = ["--workers", "8", "--queue", "0", "--writes", "4", "--db-timeout-ms", "3000", "--no-breaker"];
        let kept = world.start(&few);
        let starved = world.start(&[&few[..], &["--no-bulkhead"]].concat());
        let lock = world.cluster.lock_table("activity").expect("locked");
        for (notes, answers) in [(&kept, true), (&starved, false)] {
            std::thread::scope(|scope| {
                let writers: Vec<_> =
                    (0..16).map(|_| scope.spawn(|| notes.ask("POST", "/notes", &[], "").status)).collect();
                // Whether 4 or 8 of the writes are at work: the others are refused at once.
                let at_work = if answers { 4.0 } else { 8.0 };
                until("writes hold all that they may", || {
                    notes.sample("notes_requests_in_flight") == Some(at_work + 1.0)
                });
                let status = notes.get("/notes").status;
                assert_eq!(status, if answers { 200 } else { 503 });
                let statuses: Vec<u16> = writers.into_iter().map(|writer| writer.join().expect("an answer")).collect();
                assert!(statuses.iter().all(|status| *status == 503), "{statuses:?}");
            });
        }
        assert!(kept.sample("notes_rejected_total{policy=\"writes\"}") >= Some(12.0));
        drop(lock);
        until("writes go on", || kept.ask("POST", "/notes", &[], "").status == 201);
    });
}
