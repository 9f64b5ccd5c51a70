-- From version 3 to 4.
CREATE TABLE told (                            -- ports of this host that others hold on a runtime, as it told last; see told.rs
    runtime TEXT    NOT NULL,
    boot    TEXT    NOT NULL,                  -- the boot of the host in which it told
    told_at INTEGER NOT NULL,                  -- when it told, or a little earlier
    port    INTEGER NOT NULL,
    holder  TEXT    NOT NULL,                  -- who holds it, for a person
    lease   TEXT                               -- the label berthold.lease of that, if it has one
) STRICT;
