-- The key that a note was made with. It stands in the note's own row, so that both are there or neither is: a request
-- that is repeated, at whichever instance, finds the note. Nulls are never equal.
ALTER TABLE notes
    ADD COLUMN idempotency_key text,
    ADD COLUMN idempotency_content text,
    ADD CONSTRAINT notes_once UNIQUE (author, idempotency_key);
