SELECT * FROM litmus_pgnats_version(); -- extension version
SELECT * FROM nats_get_server_info(); -- NATS server connection info
