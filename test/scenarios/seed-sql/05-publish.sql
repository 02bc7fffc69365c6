-- Core NATS (fire-and-forget)
SELECT nats_publish_text('sub.ject', 'hello');
SELECT nats_publish_json('sub.ject', '{"key": "value"}'::json);
SELECT nats_publish_jsonb('sub.ject', '{"key": "value"}'::jsonb);
SELECT nats_publish_binary('sub.ject', 'data'::bytea);

-- With reply subject
SELECT nats_publish_text('sub.ject', 'hello', 'reply.subject');

-- With headers
SELECT nats_publish_text('sub.ject', 'hello', NULL, '{"Nats-Msg-Id": "1"}'::jsonb);

-- JetStream (sync)
SELECT nats_publish_text_stream('sub.ject', 'hello');
SELECT nats_publish_json_stream('sub.ject', '{"key": "value"}'::json);
SELECT nats_publish_jsonb_stream('sub.ject', '{"key": "value"}'::jsonb);
SELECT nats_publish_binary_stream('sub.ject', 'data'::bytea);

-- JetStream with domain override
SELECT nats_publish_text_stream('sub.ject', 'hello', NULL, 'hub');
