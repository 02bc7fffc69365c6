#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  v_name CONSTANT text := substring(ltrim(p_recipient, @QueueConstants.priority_mark@) FROM '^@(.*)$');
  v_group CONSTANT text := substring(ltrim(p_recipient, @QueueConstants.priority_mark@) FROM '^#(.*)$');
  v_like text;
BEGIN
  is_met := EXISTS (
    SELECT FROM hawser_data.workers AS w
     WHERE w.gone_at IS NULL AND w.beat_at > v_now - @lease_of(w)@ AND p_topic = ANY (w.topics) AND p_recipient = ANY (@places_of(w)@)
       AND (p_since IS NULL OR w.beat_at >= p_since)
  );
  IF is_met THEN
    RETURN;
  END IF;
  -- Who served it last.
  SELECT n.name, n.until INTO holder, since
    FROM (
      SELECT w.name, w.beat_at AS until FROM hawser_data.workers AS w WHERE p_topic = ANY (w.topics) AND p_recipient = ANY (@places_of(w)@)
       UNION ALL
      SELECT s.name, s.served_until FROM hawser_data.served_topics AS s WHERE s.topic = p_topic AND v_group IS NULL AND (v_name IS NULL OR s.name = v_name)
    ) AS n
   ORDER BY n.until DESC LIMIT 1;
  explanation := CASE
    WHEN p_since IS NOT NULL THEN format('nothing else holds it, and no worker that takes it has been heard of for %s s', floor(extract(epoch FROM v_now - since)))
    WHEN v_group IS NOT NULL THEN format('no member of the group %s that handles the topic runs', to_json(v_group))
    WHEN v_name IS NOT NULL THEN format('it is for the listener %s, which is away or does not handle the topic', to_json(v_name))
    ELSE format('no worker serves the topic %s', to_json(p_topic))
  END || coalesce('; the last one was ' || to_json(holder), '');
  remedy := CASE
    WHEN v_group IS NOT NULL THEN format('Start a worker with the group %s that handles %s', to_json(v_group), to_json(p_topic))
    WHEN v_name IS NOT NULL THEN format('Start %s, or hand over what waits for it: hawser peers reassign %s OTHER', to_json(v_name), @shell_word(v_name)@)
    ELSE format('Start a worker that handles %s', to_json(p_topic))
  END;
  IF holder IS NULL AND v_name IS NULL AND v_group IS NULL THEN
    v_like := hawser.nats_option_suggestion(p_topic, ARRAY(
      -- Those of about its length: each comparison takes its time.
      SELECT o.topic
        FROM (
          SELECT DISTINCT t.topic FROM hawser_data.workers AS w, unnest(w.topics) AS t (topic)
           WHERE w.gone_at IS NULL AND w.beat_at > v_now - @lease_of(w)@ AND abs(char_length(t.topic) - char_length(p_topic)) <= greatest(1, char_length(t.topic) * 2 / 5)
        ) AS o
       ORDER BY abs(char_length(o.topic) - char_length(p_topic)), o.topic LIMIT 50
    ));
    IF v_like IS NOT NULL THEN
      holder := v_like;
      explanation := explanation || format(', and workers serve %s: one of the names may be mistyped', to_json(v_like));
      remedy := format('If so, correct the name where it is enqueued, cancel this one, and enqueue it for %s. Otherwise: %s', to_json(v_like), remedy);
    END IF;
  END IF;
END
