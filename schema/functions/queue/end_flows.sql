#variable_conflict use_column
DECLARE
  v_point double precision := 0;
  v_from bigint;
  v_has_more boolean;
  v_released bigint[];
  v_cancelled bigint[];
  -- By the message that is cancelled, the one because of which it is.
  v_causes jsonb;
  v_kept jsonb;
  v_count integer;
BEGIN
  LOOP
    SELECT min(d.nth) + floor(v_point * (max(d.nth) - min(d.nth)))::bigint INTO v_from FROM hawser_data.flow_ends AS d WHERE d.role = p_role;
    -- Nobody waits: a transaction that locks a message, because another one is to come after it, may be open for long. What is left is looked
    -- at again. Of those that end at once, each that locks the message they hold sees what the ones before it have deleted.
    WITH ends AS MATERIALIZED (
      SELECT d.nth, d.id, d.is_done FROM hawser_data.flow_ends AS d WHERE d.role = p_role AND d.nth >= v_from ORDER BY d.nth LIMIT 500
    ), edges AS MATERIALIZED (
      SELECT e.before_id, e.after_id, d.is_done
        FROM ends AS d
       CROSS JOIN LATERAL (
         SELECT min(o.after_id) AS first, max(o.after_id) AS last FROM hawser_data.flow_edges AS o WHERE o.before_id = d.id
       ) AS b
       CROSS JOIN LATERAL (
         SELECT o.* FROM hawser_data.flow_edges AS o
          WHERE o.before_id = d.id AND (d.is_done OR o.cancels) AND o.after_id >= b.first + floor(v_point * (b.last - b.first))::bigint
          ORDER BY o.after_id LIMIT 500 FOR UPDATE SKIP LOCKED
       ) AS e
       LIMIT 500
    ), met AS MATERIALIZED (
      SELECT e.*
        FROM edges AS e
       CROSS JOIN LATERAL (
         SELECT FROM hawser_data.queue AS q WHERE q.id = e.after_id AND @is_held(q)@ FOR UPDATE SKIP LOCKED
       ) AS q
    ), gone AS (
      DELETE FROM hawser_data.flow_edges AS e USING met AS m WHERE e.before_id = m.before_id AND e.after_id = m.after_id
    )
    SELECT array_agg(DISTINCT m.after_id) FILTER (WHERE m.is_done), array_agg(DISTINCT m.after_id) FILTER (WHERE NOT m.is_done),
           jsonb_object_agg(m.after_id, m.before_id) FILTER (WHERE NOT m.is_done),
           (SELECT count(*) FROM ends) = 500 OR (SELECT count(*) FROM edges) = 500
      INTO v_released, v_cancelled, v_causes, v_has_more FROM met AS m;
    went_on := num_nonnulls(v_released, v_cancelled) > 0;

    WITH gone AS (
      DELETE FROM hawser_data.queue AS q WHERE q.id = ANY (v_cancelled) AND @is_held(q)@ RETURNING q.*
    ), ended AS (
      INSERT INTO hawser_data.flow_ends (role, id, is_done) SELECT g.role, g.id, false FROM gone AS g
    )
    SELECT jsonb_agg(@kept_of(g)@ || jsonb_build_object(
             'error_message', format('The message %s, which it comes after, has become a dead letter or was cancelled.', v_causes ->> g.id::text)
           )) INTO v_kept FROM gone AS g WHERE @keep_ms_of(g)@ IS NOT NULL;
    IF v_kept IS NOT NULL THEN
      PERFORM hawser.keep_ended(v_kept, 'cancelled', 'not_waiting', NULL);
    END IF;
    UPDATE hawser_data.queue AS q
       SET later = 'peer', later_xid = pg_current_xact_id(), due_at = greatest(q.due_at, now()),
           awaited_as = CASE WHEN EXISTS (SELECT FROM hawser_data.flow_edges AS e WHERE e.before_id = q.id) THEN q.id END
     WHERE q.id = ANY (v_released) AND @is_held(q)@ AND NOT EXISTS (SELECT FROM hawser_data.flow_edges AS e WHERE e.after_id = q.id);

    -- Those that are held further say so: a person has to retry the dead letter, or cancel them.
    WITH blocked AS MATERIALIZED (
      SELECT e.before_id, e.after_id
        FROM (
          SELECT o.* FROM hawser_data.flow_ends AS o WHERE o.role = p_role AND o.nth >= v_from ORDER BY o.nth LIMIT 500
        ) AS d
       CROSS JOIN LATERAL (
         SELECT o.before_id, o.after_id FROM hawser_data.flow_edges AS o
          WHERE o.before_id = d.id AND NOT o.cancels AND NOT o.ended LIMIT 500 FOR UPDATE SKIP LOCKED
       ) AS e
       WHERE NOT d.is_done
       LIMIT 500
    )
    UPDATE hawser_data.flow_edges AS e SET ended = true FROM blocked AS b WHERE e.before_id = b.before_id AND e.after_id = b.after_id;
    went_on := went_on OR FOUND;

    -- Those that nothing is to follow from any more. One that was held itself is not held any more, either.
    WITH over AS MATERIALIZED (
      SELECT d.nth, d.id
        FROM (
          SELECT o.* FROM hawser_data.flow_ends AS o WHERE o.role = p_role AND o.nth >= v_from ORDER BY o.nth LIMIT 500
        ) AS d
       CROSS JOIN LATERAL (
         SELECT FROM hawser_data.flow_ends AS o WHERE o.role = p_role AND o.nth = d.nth FOR UPDATE SKIP LOCKED
       ) AS l
       WHERE NOT EXISTS (SELECT FROM hawser_data.flow_edges AS e WHERE e.before_id = d.id AND (d.is_done OR e.cancels OR NOT e.ended))
    ), edges AS MATERIALIZED (
      SELECT o.nth, e.before_id, e.after_id FROM over AS o JOIN hawser_data.flow_edges AS e ON e.after_id = o.id FOR UPDATE OF e SKIP LOCKED
    ), gone AS (
      DELETE FROM hawser_data.flow_edges AS e USING edges AS l WHERE e.before_id = l.before_id AND e.after_id = l.after_id
    )
    DELETE FROM hawser_data.flow_ends AS d USING over AS o
     WHERE d.role = p_role AND d.nth = o.nth
       AND (SELECT count(*) FROM hawser_data.flow_edges AS e WHERE e.after_id = o.id) = (SELECT count(*) FROM edges AS l WHERE l.nth = o.nth);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    went_on := went_on OR v_count > 0;
    EXIT WHEN went_on OR NOT v_has_more OR v_point > 0;
    -- The first ones are all locked. Those behind have their turn from anywhere.
    v_point := random();
  END LOOP;
END
