CREATE SERVER le_nats_fdw_server
FOREIGN DATA WRAPPER litmus_pgnats_fdw
OPTIONS (
  host '<Litmus Edge IP>',
  port '4222',
  capacity '128',
  username '',
  password '<Access Account Token>'
);
