-- After `hawser init`: the login of `hawser serve`, and which NATS server it is. For psql 15 and newer; may run again.
\getenv bridge_user BRIDGE_USER
\getenv bridge_password BRIDGE_PASSWORD
\getenv nats_server NATS_SERVER

SELECT format('CREATE ROLE %I LOGIN', :'bridge_user')
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'bridge_user')
\gexec
SELECT format('ALTER ROLE %I PASSWORD %L', :'bridge_user', :'bridge_password')
\gexec
SELECT format('GRANT hawser_bridge TO %I', :'bridge_user')
\gexec
SELECT hawser.set_nats_server(:'nats_server');
