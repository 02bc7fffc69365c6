#variable_conflict use_column
-- The caller says the times and nothing else: whose messages these are, and what they have, is in the rows.
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_cluster CONSTANT bigint := hawser.present_cluster();
  v_nats boolean;
  v_topics text[];
BEGIN
  IF EXISTS (
    SELECT FROM jsonb_to_recordset(p_runs) AS r (since timestamptz, upto timestamptz, next_at timestamptz, times timestamptz[], problem text)
     WHERE (r.upto >= r.since AND r.upto <= greatest(r.since, v_now) AND isfinite(r.since) AND r.upto = date_trunc('second', r.upto)
            AND CASE
              WHEN r.next_at IS NULL THEN r.problem IN ('cron', 'timezone', 'never')
              ELSE r.next_at > r.upto AND isfinite(r.next_at) AND r.problem IS NULL
            END
            AND cardinality(r.times) <= @ScheduleConstants.page_occurrences@) IS NOT TRUE
        OR EXISTS (
             SELECT FROM (SELECT t.at, lag(t.at, 1, r.since) OVER (ORDER BY t.nth) AS before
                            FROM unnest(r.times) WITH ORDINALITY AS t (at, nth)) AS t
              WHERE (t.at > t.before AND t.at <= r.upto AND t.at = date_trunc('second', t.at)) IS NOT TRUE
           )
  ) THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = 'hawser.run_schedules: the times of an element of p_runs are not in the order since, times, upto, next_at, or upto is in the future',
      HINT = 'Give at most @ScheduleConstants.page_occurrences@ times, in whole seconds, and next_at or problem.';
  END IF;
  PERFORM hawser.commit_durably();

  BEGIN
    -- Who else has brought them in meanwhile has moved `since`. A row that another transaction is about to change is left for later:
    -- its owner can hold up nobody else. And so is one for peers with a key that a transaction is just enqueueing with, as in bring_due.
    WITH runs AS MATERIALIZED (
      SELECT r.* FROM jsonb_to_recordset(p_runs) AS r (
        role text, name text, revision bigint, since timestamptz, upto timestamptz, next_at timestamptz, times timestamptz[], problem text
      )
    ), found AS MATERIALIZED (
      SELECT s.role, s.name, s.role_mark, s.kind, s.cron, s.timezone,
             CASE WHEN s.kind <> 'nats' AND s.key IS NOT NULL THEN (hashtextextended(s.destination || ' ' || s.key, 0) & 4095)::integer END AS bucket
        FROM hawser_data.schedules AS s JOIN runs AS r ON r.role = s.role AND r.name = s.name
       WHERE s.revision = r.revision AND s.since = r.since
         FOR UPDATE OF s SKIP LOCKED
    ), held AS MATERIALIZED (
      SELECT k.role, k.bucket FROM hawser_data.enqueue_keys AS k
       WHERE (k.role, k.bucket) IN (SELECT f.role, f.bucket FROM found AS f WHERE f.bucket IS NOT NULL)
         FOR UPDATE SKIP LOCKED
    ), locked AS MATERIALIZED (
      SELECT f.* FROM found AS f WHERE f.bucket IS NULL OR (f.role, f.bucket) IN (SELECT h.role, h.bucket FROM held AS h)
    ), roles AS MATERIALIZED (
      SELECT d.*, hawser.role_fault(d.role, d.role_mark, d.kind) AS fault FROM (SELECT DISTINCT l.role, l.role_mark, l.kind FROM locked AS l) AS d
    ), planned AS MATERIALIZED (
      -- The caller may report a wrong problem. It gives a code, Postgres makes the text, and the schedule is planned again in an hour.
      SELECT r.role, r.name, r.upto, coalesce(CASE WHEN f.fault IS NULL THEN r.next_at END, v_now + interval '1 hour') AS next_at,
             CASE WHEN f.fault IS NULL THEN r.times ELSE '{}' END AS times,
             CASE
               WHEN f.fault IS NOT NULL THEN f.fault || '. Its occurrences are skipped. End it, or have the role call hawser.schedule again.'
               WHEN r.problem IS NOT NULL THEN
                 format(CASE r.problem WHEN 'cron' THEN 'the cron expression %1$s cannot be read' WHEN 'timezone' THEN 'the time zone %2$s is not known to Node.js' ELSE 'the cron expression %1$s has no further occurrence' END
                   || '. Call hawser.schedule again, with another one.', to_json(l.cron), to_json(l.timezone))
             END AS problem
        FROM runs AS r
        JOIN locked AS l ON l.role = r.role AND l.name = r.name
        JOIN roles AS f ON f.role = l.role AND f.role_mark IS NOT DISTINCT FROM l.role_mark AND f.kind = l.kind
    ), changed AS (
      UPDATE hawser_data.schedules AS s
         SET since = r.upto, next_at = r.next_at, last_at = coalesce(r.times[cardinality(r.times)], s.last_at), problem = r.problem
        FROM planned AS r
       WHERE s.role = r.role AND s.name = r.name
      RETURNING s.*, r.times
    ), occurring AS (
      SELECT c.*, t.at, to_char(t.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS time
        FROM changed AS c CROSS JOIN LATERAL unnest(c.times) AS t (at)
    ), identified AS (
      -- The same each time, so that a repetition of a transaction that a failover has lost is known for one.
      SELECT o.*, o.name || '@' || o.time || '.' || left(encode(sha256(convert_to(o.secret || ' ' || o.time, 'UTF8')), 'hex'), 32) AS message_id
        FROM occurring AS o
    ), published AS (
      INSERT INTO hawser_data.outbox
        (segment, destination, payload, headers, key, message_id, to_stream, domain, role, role_id, cluster, first_enqueued_at)
      SELECT (coalesce(pg_sequence_last_value('hawser_data.outbox_state_segment_seq'), 1) - 1) % @OutboxConstants.segments@,
             i.destination, i.payload,
             coalesce(i.headers, '{}')
               || jsonb_build_object(@ScheduleConstants.name_header@, i.name, @ScheduleConstants.time_header@, i.time),
             i.key, CASE WHEN i.to_stream THEN i.message_id END, i.to_stream, i.domain, i.role, to_regrole(quote_ident(i.role))::oid::bigint, v_cluster, i.at
        FROM identified AS i
       WHERE i.kind = 'nats'
       ORDER BY i.at, i.role, i.name
      RETURNING segment
    ), queued AS (
      INSERT INTO hawser_data.queue (topic, recipient, role, role_id, rank, id, key, to_all, payload, headers)
      SELECT i.destination, CASE i.priority WHEN 0 THEN '' ELSE @QueueConstants.priority_mark@ END, i.role, to_regrole(quote_ident(i.role))::oid::bigint,
             i.id - (i.priority::bigint << @QueueConstants.id_bits@), i.id, i.key, i.to_all, i.payload,
             coalesce(i.headers, '[]') || jsonb_build_array(
               jsonb_build_array(@ProtocolConstants.message_id_header@, i.message_id),
               jsonb_build_array(@ScheduleConstants.name_header@, i.name),
               jsonb_build_array(@ScheduleConstants.time_header@, i.time)
             )
        FROM (SELECT d.*, nextval('hawser_data.outbox_id_seq') AS id FROM identified AS d WHERE d.kind <> 'nats' ORDER BY d.at, d.role, d.name) AS i
      RETURNING topic
    )
    SELECT (SELECT count(*) FROM changed), p.count + (SELECT count(*) FROM queued), p.count > 0, ARRAY(SELECT DISTINCT q.topic FROM queued AS q)
      INTO ran, enqueued, v_nats, v_topics
      FROM (SELECT count(*) FROM published) AS p (count);
  EXCEPTION WHEN OTHERS THEN
    -- One that cannot be enqueued keeps no other one from it, and says why.
    IF jsonb_array_length(p_runs) > 1 THEN
      SELECT sum(o.ran), sum(o.enqueued) INTO ran, enqueued
        FROM jsonb_array_elements(p_runs) AS r (run) CROSS JOIN LATERAL hawser.run_schedules(jsonb_build_array(r.run)) AS o;
      RETURN;
    END IF;
    enqueued := 0;
    UPDATE hawser_data.schedules AS s SET next_at = v_now + interval '1 hour', problem = left('its message cannot be enqueued: ' || SQLERRM, 250)
     WHERE (s.role, s.name) = (
       SELECT o.role, o.name FROM hawser_data.schedules AS o
        WHERE o.role = p_runs -> 0 ->> 'role' AND o.name = p_runs -> 0 ->> 'name' AND o.revision = (p_runs -> 0 ->> 'revision')::bigint
          FOR UPDATE SKIP LOCKED
     );
    GET DIAGNOSTICS ran = ROW_COUNT;
    RETURN;
  END;
  -- As in enqueue_message.
  IF v_nats AND pg_sequence_last_value('hawser_data.outbox_state_asleep_seq') = 2 THEN
    PERFORM pg_notify('hawser_outbox', '') WHERE pg_notification_queue_usage() < 0.9;
  END IF;
  IF v_topics <> '{}' THEN
    PERFORM hawser.wake_topics(v_topics);
  END IF;
END
