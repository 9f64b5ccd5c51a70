-- From version 1 to 2.
CREATE TABLE former (                          -- what owners of bare leases had; an agent's is in its row of `agents`
    project     TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    ports       TEXT    NOT NULL,              -- in label order, joined by '-'
    released_at INTEGER NOT NULL,
    PRIMARY KEY (project, name)
) STRICT;

ALTER TABLE leases ADD COLUMN holder TEXT;     -- JSON: the process with which a bare lease ends; NULL: until it is released

CREATE TABLE history (                         -- who held which port when: a row a port of a lease; see ledger/history.rs
    id      INTEGER PRIMARY KEY,               -- in the order of granting
    port    INTEGER NOT NULL,
    lease   TEXT    NOT NULL,
    kind    TEXT    NOT NULL CHECK (kind IN ('agent', 'bare')),
    project TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    place   INTEGER NOT NULL,
    since   INTEGER NOT NULL,
    until   INTEGER,                           -- NULL while it is held
    reason  TEXT                               -- why it ended
) STRICT;

CREATE INDEX held ON history (lease) WHERE until IS NULL;

INSERT INTO history (port, lease, kind, project, name, place, since)
SELECT port, lease, kind, project, name, place, granted_at FROM ports JOIN leases ON lease = id ORDER BY id, place;
