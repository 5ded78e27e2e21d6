-- What the runs of a thread asked for in their `configurable`: it holds for its later runs.
ALTER TABLE threads ADD COLUMN settings jsonb NOT NULL DEFAULT '{}';
