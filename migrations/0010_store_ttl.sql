-- An item's own time to live, from which reading it counts again. NULL: it does not expire.
ALTER TABLE store ADD COLUMN ttl_minutes double precision;
