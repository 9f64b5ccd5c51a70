-- Schema version 1. The version is in PRAGMA user_version; a change of the schema is another file beside this one.
CREATE TABLE leases (
    id         TEXT    NOT NULL PRIMARY KEY,
    kind       TEXT    NOT NULL CHECK (kind IN ('agent', 'bare')),
    project    TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    granted_at INTEGER NOT NULL,               -- milliseconds since the Unix epoch, as every time here
    UNIQUE (kind, project, name)               -- an owner has one lease at the most: no restart grows the ledger
) STRICT;

CREATE TABLE ports (
    port  INTEGER NOT NULL PRIMARY KEY CHECK (port BETWEEN 1 AND 65535),   -- P1: no port is in two leases
    lease TEXT    NOT NULL REFERENCES leases (id) ON DELETE CASCADE,
    place INTEGER NOT NULL CHECK (place >= 0), -- 0 for label A
    UNIQUE (lease, place)
) STRICT;

CREATE TABLE agents (
    project     TEXT NOT NULL,
    name        TEXT NOT NULL,
    runtime     TEXT NOT NULL,
    state       TEXT NOT NULL,
    spec        TEXT,                          -- JSON; NULL for an agent that was adopted from its labels
    container   TEXT,                          -- the runtime's id
    published   TEXT,
    former      TEXT NOT NULL,                 -- ports in label order, joined by '-'
    released_at INTEGER,
    started_at  INTEGER,
    ended_at    INTEGER,
    exit_code   INTEGER,
    reason      TEXT,
    warnings    TEXT NOT NULL,                 -- a JSON list
    PRIMARY KEY (project, name)
) STRICT;
