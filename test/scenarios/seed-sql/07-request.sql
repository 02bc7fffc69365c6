SELECT nats_request_text('rpc.subject', 'payload', 5000); -- timeout in ms
SELECT nats_request_json('rpc.subject', '{"q": "v"}'::json, 5000);
SELECT nats_request_jsonb('rpc.subject', '{"q": "v"}'::jsonb, 5000);
SELECT nats_request_binary('rpc.subject', 'data'::bytea, 5000);
