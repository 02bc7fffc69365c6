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
  SELECT string_agg(format('%s=''%s''', option.name, replace(replace(option.value, E'\\', E'\\\\'), '''', E'\\''')), ' ')
  INTO STRICT conninfo
  FROM (
    VALUES
      ('host', place.hosts),
      ('port', place.ports),
      ('dbname', current_database()::text),
      ('user', (SELECT s.user_name FROM hawser.gateway_secret AS s)),
      ('password', (SELECT s.password FROM hawser.gateway_secret AS s)),
      ('sslmode', place.sslmode),
      ('sslrootcert', place.root_certificate),
      ('gssencmode', 'disable'),
      ('connect_timeout', @GatewayConstants.gateway_connect_timeout_s@::text),
      ('keepalives_idle', @GatewayConstants.gateway_keepalive_s@::text),
      ('keepalives_interval', @GatewayConstants.gateway_keepalive_s@::text),
      ('keepalives_count', @GatewayConstants.gateway_keepalive_probes@::text),
      ('tcp_user_timeout', @GatewayConstants.gateway_tcp_user_timeout_ms@::text),
      -- libpq refuses an option that it does not know.
      ('require_auth', CASE WHEN version >= 160000 THEN 'scram-sha-256' END)
  ) AS option (name, value)
  WHERE option.value IS NOT NULL;
END
