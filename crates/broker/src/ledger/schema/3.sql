-- From version 2 to 3.
ALTER TABLE agents ADD COLUMN engine TEXT;     -- which engine runs it, see `engines`; NULL: not known
