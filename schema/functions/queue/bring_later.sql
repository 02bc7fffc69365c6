#variable_conflict use_column
DECLARE
  v_now CONSTANT timestamptz := clock_timestamp();
  -- Each role may bring so many, look at so many at a time, and take so long.
  v_most CONSTANT integer := greatest(50, 1000 / greatest(1, jsonb_array_length(p_from)));
  v_time CONSTANT interval := '15 milliseconds';
  v_role text;
  v_from timestamptz;
  v_begun_at timestamptz;
  v_page_of integer;
  v_page record;
  v_has_more boolean;
  v_left_keys integer[];
  v_at timestamptz;
  v_id bigint;
  v_of_role integer;
  v_has_jumped boolean;
  v_left timestamptz;
  v_next timestamptz;
BEGIN
  brought := 0;
  due_from := '[]';
  FOR v_role, v_from IN
    SELECT e.of ->> 0, CASE WHEN (e.of ->> 1)::bigint > 0 THEN to_timestamp((e.of ->> 1)::double precision / 1000) ELSE '-infinity' END
      FROM jsonb_array_elements(p_from) AS e (of) ORDER BY 1
  LOOP
    v_left := v_from;
    v_next := v_from;
    IF v_from <= v_now THEN
      v_begun_at := clock_timestamp();
      v_page_of := v_most;
      v_at := v_from;
      v_id := -9223372036854775808;
      v_of_role := 0;
      v_has_jumped := false;
      v_left_keys := '{}';
      -- What an error ends is the page of one role. Its messages are then brought one by one, and the one that cannot be is put off.
      BEGIN
        LOOP
          BEGIN
            SELECT p.* INTO v_page
              FROM hawser.bring_page(p_kind, v_role, v_at, v_id, v_now, v_page_of, CASE WHEN NOT v_has_jumped THEN v_left_keys END) AS p;
            brought := brought + v_page.brought;
            v_of_role := v_of_role + v_page.ended;
            v_at := v_page.last_at;
            v_id := v_page.last_id;
            v_left_keys := v_left_keys || v_page.left_keys;
            v_has_more := v_page.has_more;
          EXCEPTION WHEN OTHERS THEN
            IF v_page_of > 1 THEN
              v_page_of := 1;
              CONTINUE;
            END IF;
            problem := SQLERRM;
            SELECT l.id, l.due_at INTO v_id, v_at FROM hawser_data.queue AS l
             WHERE l.later = p_kind AND l.role = v_role AND (l.due_at, l.id) > (v_at, v_id) AND l.due_at <= v_now
             ORDER BY l.due_at, l.id LIMIT 1;
            EXIT WHEN NOT FOUND;
            UPDATE hawser_data.queue AS l SET due_at = v_now + interval '1 hour', later_xid = pg_current_xact_id()
             WHERE l.id = (SELECT o.id FROM hawser_data.queue AS o WHERE o.id = v_id FOR UPDATE SKIP LOCKED);
            problem := format('the message %s of the role %s is put off for an hour: %s', v_id, to_json(v_role), problem);
            RAISE WARNING 'hawser: %', problem;
            v_has_more := true;
          END;
          EXIT WHEN v_of_role >= v_most OR NOT v_has_more OR v_has_jumped;
          IF clock_timestamp() > v_begun_at + v_time THEN
            -- The first ones are locked, many of them. Those behind have their turn from anywhere, but for a key, whose order counts.
            v_at := greatest(v_from, '1970-01-01 00:00:00Z');
            v_at := v_at + random() * (v_now - v_at);
            v_has_jumped := true;
          END IF;
        END LOOP;
        SELECT min(l.due_at) INTO v_left FROM hawser_data.queue AS l WHERE l.later = p_kind AND l.role = v_role AND l.due_at >= v_from;
        v_next := v_left;
        IF v_left <= v_now THEN
          -- There are more, or others have locked them, which is asked rarely if it takes long.
          v_next := v_now;
          IF v_of_role < v_most THEN
            SELECT least(
                     v_now + least(greatest(interval '50 milliseconds', 10 * (clock_timestamp() - v_begun_at)), interval '500 milliseconds'),
                     min(l.due_at)
                   ) INTO v_next
              FROM hawser_data.queue AS l WHERE l.later = p_kind AND l.role = v_role AND l.due_at > v_now;
          END IF;
        END IF;
      EXCEPTION WHEN OTHERS THEN
        v_left := v_from;
        v_next := v_now + interval '1 second';
        problem := format('messages of the role %s: %s', to_json(v_role), SQLERRM);
        RAISE WARNING 'hawser: cannot bring in %', problem;
      END;
    END IF;
    IF v_left IS NOT NULL THEN
      due_from := due_from || (SELECT jsonb_build_array(jsonb_build_array(v_role, @due_ms(f)@)) FROM (SELECT v_left AS at) AS f);
      due_in_ms := least(
        due_in_ms, ceil(extract(epoch FROM least(greatest(v_next, clock_timestamp()), v_now + interval '1 day') - clock_timestamp()) * 1000)
      );
    END IF;
  END LOOP;
END
