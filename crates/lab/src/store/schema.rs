//! What a run's databases hold: tables made from the system file, and the statements of its operations.

use std::collections::BTreeSet;

use plimsoll_model::system::{Lock, Operation, Store};

/// Places of a node are advisory locks of this class.
const PLACES: u32 = 0x706c;
/// Answers are not larger than this, bytes.
const SIZE_MAX: u64 = 16 << 20;

/// A table's name.
pub fn table(number: u32) -> String {
    format!("table_{number}")
}

/// The numbers of a store's tables.
pub fn tables(store: &Store) -> BTreeSet<u32> {
    store.operations.iter().map(|operation| operation.table).collect()
}

/// Statements that make all of it, for a node that runs so many operations at once.
///
/// `plimsoll_spend` is where an operation spends its time: it takes a place, any that is free, or else waits for one, and
/// sleeps. A place is held until then and no longer, whatever transaction it is in.
pub fn create(store: &Store, concurrency: u32) -> String {
    let tables: String = tables(store)
        .into_iter()
        .map(|number| format!("CREATE TABLE {} (key bigint PRIMARY KEY, version bigint NOT NULL);\n", table(number)))
        .collect();
    format!(
        "{tables}
CREATE TABLE plimsoll_ledger (number bigint PRIMARY KEY);
CREATE TABLE plimsoll_heartbeat (id int PRIMARY KEY, at bigint NOT NULL);
CREATE FUNCTION plimsoll_spend(seconds float8) RETURNS int LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    first int := floor(random() * {concurrency})::int;
    place int := first;
    taken bool := false;
BEGIN
    FOR i IN 0 .. {last} LOOP
        place := (first + i) % {concurrency};
        taken := pg_try_advisory_lock({PLACES}, place);
        EXIT WHEN taken;
    END LOOP;
    IF NOT taken THEN
        place := first;
        PERFORM pg_advisory_lock({PLACES}, place);
    END IF;
    PERFORM pg_sleep(seconds);
    PERFORM pg_advisory_unlock({PLACES}, place);
    RETURN place;
END $$",
        last = concurrency.max(1) - 1,
        concurrency = concurrency.max(1),
    )
}

/// The statement of an operation. `$1` is the row's key, `$2` the time that it takes, s. Of a read `$3` is the oldest
/// heartbeat at which the node answers, 0 for any; of a write the number for the ledger, null for none. It returns the
/// row's version, null where there is none, and whether the node has answered.
pub fn statement(operation: &Operation) -> String {
    let table = table(operation.table);
    let upsert = "ON CONFLICT (key) DO UPDATE SET version = t.version + 1 RETURNING version, true";
    let noted = "WITH noted AS (INSERT INTO plimsoll_ledger SELECT $3 WHERE $3 IS NOT NULL)";
    match (operation.write, operation.lock) {
        // The time is spent before the row is locked.
        (true, Lock::None) => format!(
            "{noted} INSERT INTO {table} AS t (key, version) SELECT $1, 1 FROM (SELECT plimsoll_spend($2) OFFSET 0) s \
             {upsert}"
        ),
        // It is spent with the row locked.
        (true, _) => {
            format!("{noted} INSERT INTO {table} AS t (key, version) VALUES ($1, 1) {upsert}, plimsoll_spend($2)")
        }
        (false, lock) => {
            let locked = if lock == Lock::Row { " FOR UPDATE" } else { "" };
            let size = operation.size.min(SIZE_MAX);
            format!(
                "SELECT version, fresh, CASE WHEN fresh THEN plimsoll_spend($2) END, CASE WHEN fresh THEN repeat('.', \
                 {size}) END FROM (SELECT (SELECT version FROM {table} WHERE key = $1{locked}) AS version, ($3 = 0 OR \
                 (SELECT at FROM plimsoll_heartbeat) >= $3) AS fresh OFFSET 0) seen"
            )
        }
    }
}
