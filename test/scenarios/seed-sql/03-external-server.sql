CREATE SERVER nats_fdw_server FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (
  -- IP/hostname of the NATS message server (default 127.0.0.1)
  host 'localhost',
  -- TCP port for NATS connections (default 4222)
  port '4222',
  -- Internal command buffer size in messages (default 128)
  capacity '128',
  -- Path to the CA certificate used to verify the NATS server certificate.
  -- Required for TLS when tls_insecure is not set.
  tls_ca_path '/path/ca',
  -- Path to the client certificate for mutual TLS authentication.
  -- Optional unless the server requires client auth.
  tls_cert_path '/path/cert',
  -- Path to the client private key. Required when tls_cert_path is set.
  tls_key_path '/path/key',
  -- (Optional)
  -- Skip TLS certificate verification entirely.
  -- For development or servers with self-signed/private CA certs (e.g. Litmus Edge).
  tls_insecure 'true',
  -- (Optional)
  -- Default JetStream domain for all KV, object store, and stream publish calls.
  -- Can be overridden per call via the domain parameter on individual functions.
  domain 'hub',
  -- (Optional)
  -- NATS username for username/password authentication.
  -- Requires password or password_path.
  username 'myuser',
  -- (Optional)
  -- Absolute path to a file containing the NATS password.
  -- File contents are trimmed of surrounding whitespace.
  -- Preferred over the inline password option — rotation takes effect on reconnect.
  password_path '/run/secrets/nats_password',
  -- (Optional)
  -- Inline NATS password stored in pg_foreign_server options (visible to superusers).
  password 'hunter2',
  -- (Optional)
  -- Absolute path to a file containing an NKey seed string.
  -- Takes precedence over username/password when set.
  nkey_seed_path '/run/secrets/nats_nkey_seed',
  -- (Optional)
  -- Inline NKey seed stored in pg_foreign_server options (visible to superusers).
  nkey_seed 'SUABC...',
  -- (Optional)
  -- Absolute path to a file containing a NATS token (no username required).
  -- Takes precedence over username/password; use for NATS token auth mode.
  token_path '/run/secrets/nats_token',
  -- (Optional)
  -- Inline NATS token stored in pg_foreign_server options (visible to superusers).
  token 'my-token',
  -- (Optional)
  -- NATS subject for Patroni role change notifications.
  notify_subject 'my.subject',
  -- (Optional)
  -- Patroni REST API URL for role change detection.
  patroni_url 'http://localhost:8008/patroni',
  -- (Optional)
  -- Statement timeout (ms) applied to responder handler SPI calls (default 5000).
  responder_timeout_ms '5000'
);
