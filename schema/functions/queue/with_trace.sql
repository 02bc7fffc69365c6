DECLARE
  c_zero CONSTANT text := '^00-0{32}|-0{16}-';
  v_parent text := current_setting(@TraceConstants.parent_setting@, true);
  v_state text := current_setting(@TraceConstants.state_setting@, true);
  v_kept CONSTANT text := current_setting(@TraceConstants.statement_setting@, true);
  v_time text;
  v_statement text;
  v_comment text;
  v_room boolean;
BEGIN
  headers := p_headers;
  IF (v_parent ~ @traceparent.pattern@ AND v_parent !~ c_zero) IS NOT TRUE THEN
    v_time := statement_timestamp()::text;
    IF v_kept <> '' AND starts_with(v_kept, v_time || E'\n') THEN
      v_comment := substr(v_kept, length(v_time) + 2);
    ELSE
      v_statement := current_query();
      -- The last comment, if the statement ends with one; of the last 4,096 characters. Found from its end, whatever is before it.
      v_comment := rtrim(right(v_statement, 4096), E' \t\r\n;');
      v_comment := CASE
        WHEN right(v_comment, 2) = '*/' AND strpos(reverse(left(v_comment, -2)), '*/') > 0 THEN
          right(left(v_comment, -2), strpos(reverse(left(v_comment, -2)), '*/') - 1)
      END;
      v_comment := CASE WHEN strpos(v_comment, @TraceConstants.parent_header@ || '=') > 0 THEN v_comment ELSE '' END;
      -- A statement with many rows may have many megabytes, and each row may enqueue a message.
      IF octet_length(v_statement) > @TraceConstants.short_statement_bytes@ THEN
        PERFORM set_config(@TraceConstants.statement_setting@, v_time || E'\n' || v_comment, true);
      ELSIF v_kept <> '' THEN
        PERFORM set_config(@TraceConstants.statement_setting@, '', true);
      END IF;
    END IF;
    v_parent := substring(v_comment FROM E'(?:^|[,\\s])' || @TraceConstants.parent_header@ || '=''([^'']*)''');
    v_state := substring(v_comment FROM E'(?:^|[,\\s])' || @TraceConstants.state_header@ || E'=''((?:[^''\\\\]|\\\\.)*)''');
    -- Each character may be encoded by its number in hexadecimal, as in an URL; a wrong one makes the whole NULL.
    IF strpos(v_state, '%') > 0 THEN
      v_state := (
        SELECT CASE WHEN bool_and(p.text IS NOT NULL) THEN string_agg(p.text, '' ORDER BY p.nth) END
          FROM (
            SELECT s.nth, CASE
                     WHEN s.nth = 1 THEN s.part
                     WHEN s.part ~ '^[2-7][0-9A-Fa-f]' THEN chr(('x' || left(s.part, 2))::bit(8)::integer) || substr(s.part, 3)
                   END AS text
              FROM unnest(string_to_array(left(v_state, 3 * @tracestate.max_bytes@), '%')) WITH ORDINALITY AS s (part, nth)
          ) AS p
      );
    END IF;
    v_state := replace(v_state, E'\\''', '''');
    IF (v_parent ~ @traceparent.pattern@ AND v_parent !~ c_zero) IS NOT TRUE THEN
      RETURN;
    END IF;
  END IF;
  IF (octet_length(v_state) <= @tracestate.max_bytes@ AND v_state ~ @tracestate.pattern@) IS NOT TRUE THEN
    v_state := NULL;
  END IF;

  -- What is no object of strings is refused by others.
  v_room := p_headers IS NULL;
  IF jsonb_typeof(p_headers) = 'object' THEN
    v_room := NOT EXISTS (
        SELECT FROM jsonb_object_keys(p_headers) AS h (name)
         WHERE lower(h.name COLLATE "C") IN (@TraceConstants.parent_header@, @TraceConstants.state_header@)
      )
      AND octet_length(p_headers::text) <= @nats_headers.max_bytes@ - 2048
      AND (
        SELECT coalesce(sum(CASE jsonb_typeof(h.value) WHEN 'array' THEN jsonb_array_length(h.value) ELSE 1 END), 0)
          FROM jsonb_each(p_headers) AS h
      ) + 1 + (v_state IS NOT NULL)::integer <= p_max_items;
  END IF;
  IF v_room THEN
    headers := coalesce(p_headers, '{}') || jsonb_build_object(@TraceConstants.parent_header@, v_parent)
      || CASE WHEN v_state IS NULL THEN '{}' ELSE jsonb_build_object(@TraceConstants.state_header@, v_state) END;
  END IF;
END
