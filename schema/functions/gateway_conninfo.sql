DECLARE
  version CONSTANT integer := current_setting('server_version_num')::integer;
  place record;
BEGIN
  WITH addresses AS (
    -- Several gateways may share one: those behind the name of a service.
    SELECT DISTINCT ON (g.host, g.port) g.host, g.port, g.sslmode, g.root_certificate, g.started_at, known.is_stale
    FROM hawser_bridge_data.gateways AS g, LATERAL (
      -- On a standby nothing is written, and what it has may be old.
      SELECT g.owner <> '' AND NOT pg_is_in_recovery()
        AND g.seen_at < now() - @GatewayConstants.gateway_stale_ms@ * interval '1 ms' AS is_stale
    ) AS known
    ORDER BY g.host, g.port, known.is_stale, g.started_at DESC
  ), first_one AS (
    SELECT a.sslmode, a.root_certificate FROM addresses AS a ORDER BY a.is_stale, a.started_at DESC, a.host, a.port LIMIT 1
  )
  SELECT
    string_agg(a.host, ',' ORDER BY a.is_stale, a.started_at DESC, a.host, a.port) AS hosts,
    string_agg(a.port::text, ',' ORDER BY a.is_stale, a.started_at DESC, a.host, a.port) AS ports,
    min(a.sslmode) AS sslmode,
    min(a.root_certificate) AS root_certificate
  INTO place
  FROM addresses AS a, first_one AS f
  -- libpq takes one of each for all: those that differ are left out.
  WHERE a.sslmode = f.sslmode AND a.root_certificate IS NOT DISTINCT FROM f.root_certificate;
  IF place.hosts IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('gateway_unavailable'),
      MESSAGE = 'no gateway is entered for this database: none runs',
      HINT = (SELECT e.remedy FROM hawser.error_codes() AS e WHERE e.code = 'gateway_unavailable');
  END IF;
  -- dblink takes the first 63 bytes for the name of a foreign server before it takes the whole for a connection string:
  -- a role that could foretell them could make a server of that name, and have every session connect there. So they hold
  -- the password, and the order matters.
  SELECT string_agg(
    format('%s=''%s''', option.name, replace(replace(option.value, E'\\', E'\\\\'), '''', E'\\''')),
    ' ' ORDER BY option.position)
  INTO STRICT conninfo
  FROM (
    VALUES
      (1, 'password', (SELECT s.password FROM hawser_bridge_data.gateway_secret AS s)),
      (2, 'user', (SELECT s.user_name FROM hawser_bridge_data.gateway_secret AS s)),
      (3, 'host', place.hosts),
      (4, 'port', place.ports),
      (5, 'dbname', current_database()::text),
      (6, 'sslmode', place.sslmode),
      (7, 'sslrootcert', place.root_certificate),
      (8, 'gssencmode', 'disable'),
      -- Whatever the environment of the server says.
      (9, 'target_session_attrs', 'any'),
      (10, 'options', ''),
      -- A gateway that does not accept within 3 s is passed over for the next one.
      (11, 'connect_timeout', '3'),
      (12, 'keepalives_idle', '15'),
      (13, 'keepalives_interval', '15'),
      (14, 'keepalives_count', '3'),
      (15, 'tcp_user_timeout', '30000'),
      -- libpq refuses an option that it does not know.
      (16, 'require_auth', CASE WHEN version >= 160000 THEN 'scram-sha-256' END),
      -- Who ends TLS in between cannot pass the login on; and Postgres 14 and 15 say the password to nobody.
      (17, 'channel_binding', CASE WHEN place.sslmode <> 'disable' THEN 'require' END)
  ) AS option (position, name, value)
  WHERE option.value IS NOT NULL;
END
