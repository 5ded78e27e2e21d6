-- The table of LangGraph's PostgresStore, at its migration 3. Its index over all values is left out: no
-- search of the store can use it, and it makes every write slower. So is its trigger, which repeats what
-- the store's own UPDATE says. Semantic search adds its tables when an index is configured.
CREATE TABLE store_migrations (
  v integer PRIMARY KEY
);
INSERT INTO store_migrations (v) VALUES (0), (1), (2), (3);

CREATE TABLE store (
  namespace_path text NOT NULL,
  key text NOT NULL,
  value jsonb NOT NULL,
  created_at timestamptz DEFAULT CURRENT_TIMESTAMP,
  updated_at timestamptz DEFAULT CURRENT_TIMESTAMP,
  expires_at timestamptz,
  PRIMARY KEY (namespace_path, key)
);
-- For namespace prefixes, which an ordinary index serves only in the C collation.
CREATE INDEX store_namespace_prefix ON store (namespace_path text_pattern_ops);
CREATE INDEX idx_store_expires_at ON store (expires_at) WHERE expires_at IS NOT NULL;
