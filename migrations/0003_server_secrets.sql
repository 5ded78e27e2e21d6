-- Secrets that all processes of a deployment share and none of them is told, such as the key that signs
-- feedback links. Made by whichever process needs one first.
CREATE TABLE server_secrets (
  name text PRIMARY KEY,
  value text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);
