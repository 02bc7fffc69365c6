-- Write
SELECT nats_put_text('bucket', 'key', 'value');
SELECT nats_put_json('bucket', 'key', '{"x": 1}'::json);
SELECT nats_put_jsonb('bucket', 'key', '{"x": 1}'::jsonb);
SELECT nats_put_binary('bucket', 'key', 'data'::bytea);

-- Write to a specific domain
SELECT nats_put_text('bucket', 'key', 'value', 'hub');

-- Read
SELECT nats_get_text('bucket', 'key');
SELECT nats_get_json('bucket', 'key');
SELECT nats_get_jsonb('bucket', 'key');
SELECT nats_get_binary('bucket', 'key');

-- Read from a specific domain
SELECT nats_get_text('bucket', 'key', 'hub');

-- Delete
SELECT nats_delete_value('bucket', 'key');
SELECT nats_delete_value('bucket', 'key', 'hub');
