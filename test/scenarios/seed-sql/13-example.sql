-- Enable the extension in the database you want to implement your use case
CREATE EXTENSION IF NOT EXISTS litmus_pgnats;

-- Setup the foreign server connection
CREATE SERVER nats_fdw_server_test FOREIGN DATA WRAPPER litmus_pgnats_fdw OPTIONS (
  -- nats-external is the primary NATS server (JetStream domain hub)
  host '10.30.50.1',
  -- TCP port for NATS connections
  port '4222',
  -- Internal command buffer size in messages
  capacity '128',
  -- pgnats NATS username (for LE access token leave set to empty string)
  username '',
  -- Litmus Edge access account token
  password '<Access Account Token>');

-- Reload config
SELECT litmus_pgnats_reload_conf();

-- Verify connection
SELECT * FROM nats_get_server_info();

-- Create table to store LE payloads as simple string
CREATE TABLE IF NOT EXISTS litmus_pgnats_test_messages (
  received_at timestamptz DEFAULT now(),
  payload text
);

-- Create a function used by the subscriber to process the incoming payload
CREATE OR REPLACE FUNCTION litmus_pgnats_test_capture(msg bytea)
RETURNS void LANGUAGE sql AS $$
  INSERT INTO litmus_pgnats_test_messages(payload)
  VALUES (convert_from(msg, 'UTF8'));
$$;

-- Subscribe to topic from Litmus Edge
SELECT nats_subscribe('devicehub.alias.<mydevice>.<mytag>', 'litmus_pgnats_test_capture'::regproc);

-- Verify data are captured
SELECT * FROM litmus_pgnats_test_messages ORDER BY received_at DESC LIMIT 10;

-- Cleanup
SELECT nats_unsubscribe('devicehub.alias.<mydevice>.<mytag>', 'litmus_pgnats_test_capture'::regproc);
