DECLARE
  version CONSTANT integer := current_setting('server_version_num')::integer;
  place record;
BEGIN
  SELECT
    string_agg(g.host, ',' ORDER BY g.started_at DESC, g.host, g.port) AS hosts,
    string_agg(g.port::text, ',' ORDER BY g.started_at DESC, g.host, g.port) AS ports,
    -- libpq takes one for all: the strictest that any of them names.
    CASE
      WHEN bool_or(g.sslmode = 'verify-full') THEN 'verify-full'
      WHEN bool_or(g.sslmode = 'verify-ca') THEN 'verify-ca'
      WHEN bool_or(g.sslmode = 'require') THEN 'require'
      ELSE 'disable'
    END AS sslmode,
    max(g.root_certificate) AS root_certificate
  INTO place
  FROM hawser.gateways AS g;
  IF place.hosts IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('gateway_unavailable'),
      MESSAGE = 'no gateway has been started for this database',
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'gateway_unavailable');
  END IF;
  -- dblink takes the first 63 bytes for the name of a foreign server before it takes the whole for a connection string:
  -- whoever could foretell them could make a server of that name, and have every session connect there. So they hold the
  -- password, and the order is no accident.
  SELECT string_agg(
    format('%s=''%s''', option.name, replace(replace(option.value, E'\\', E'\\\\'), '''', E'\\''')),
    ' ' ORDER BY option.position)
  INTO STRICT conninfo
  FROM (
    VALUES
      (1, 'password', (SELECT s.password FROM hawser.gateway_secret AS s)),
      (2, 'user', (SELECT s.user_name FROM hawser.gateway_secret AS s)),
      (3, 'host', place.hosts),
      (4, 'port', place.ports),
      (5, 'dbname', current_database()::text),
      (6, 'sslmode', place.sslmode),
      (7, 'sslrootcert', place.root_certificate),
      (8, 'gssencmode', 'disable'),
      -- Whatever the environment of the server says.
      (9, 'target_session_attrs', 'any'),
      (10, 'options', ''),
      (11, 'connect_timeout', @GatewayConstants.gateway_connect_timeout_s@::text),
      (12, 'keepalives_idle', @GatewayConstants.gateway_keepalive_s@::text),
      (13, 'keepalives_interval', @GatewayConstants.gateway_keepalive_s@::text),
      (14, 'keepalives_count', @GatewayConstants.gateway_keepalive_probes@::text),
      (15, 'tcp_user_timeout', @GatewayConstants.gateway_tcp_user_timeout_ms@::text),
      -- libpq refuses an option that it does not know.
      (16, 'require_auth', CASE WHEN version >= 160000 THEN 'scram-sha-256' END),
      -- Who ends TLS in between cannot pass the login on; and Postgres 14 and 15 say the password to nobody.
      (17, 'channel_binding', CASE WHEN place.sslmode <> 'disable' THEN 'require' END)
  ) AS option (position, name, value)
  WHERE option.value IS NOT NULL;
END
