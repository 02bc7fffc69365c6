DECLARE
  v_name text;
  v_value jsonb;
  v_fault text;
  -- With those of the key and of the origin, which the hand-over adds.
  v_count integer := 2 + (p_message_id IS NOT NULL)::integer;
BEGIN
  IF jsonb_typeof(coalesce(p_headers, '{}')) <> 'object' THEN
    v_fault := 'headers must be a JSON object, and this is ' || jsonb_typeof(p_headers);
  ELSE
    -- What a frame can have.
    FOR v_name, v_value IN
      SELECT h.key, v.value
        FROM jsonb_each(coalesce(p_headers, '{}')) AS h,
             jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
    LOOP
      v_fault := CASE
        WHEN v_name !~ @header_name.pattern@ OR octet_length(v_name) > @header_name.max_bytes@ THEN
          format('headers: the name %s must be 1 to @header_name.max_bytes@ characters of visible ASCII without '':''', to_json(v_name))
        WHEN lower(v_name COLLATE "C") = @ProtocolConstants.message_id_header@ THEN
          format('headers: %s is set by Hawser; give message_id instead', to_json(v_name))
        WHEN lower(v_name COLLATE "C") = @ProtocolConstants.message_key_header@ THEN
          format('headers: %s is set by Hawser; give key instead', to_json(v_name))
        WHEN lower(v_name COLLATE "C") = @ProtocolConstants.message_origin_header@ THEN
          format('headers: %s is set by Hawser; leave it out', to_json(v_name))
        WHEN jsonb_typeof(v_value) <> 'string' THEN
          format('headers: %s must be a string or an array of strings, and has %s', to_json(v_name), jsonb_typeof(v_value))
        WHEN octet_length(v_value #>> '{}') > @header_value.max_bytes@ THEN
          format('headers: the value of %s has %s bytes, and may have @header_value.max_bytes@', to_json(v_name), octet_length(v_value #>> '{}'))
        WHEN v_value #>> '{}' !~ @header_value.pattern@ THEN
          format('headers: the value of %s must not contain control characters other than tab', to_json(v_name))
      END;
      EXIT WHEN v_fault IS NOT NULL;
      v_count := v_count + 1;
      -- Each one that is added copies all before it.
      IF v_count <= @peer_headers.max_items@ THEN
        headers := coalesce(headers, '[]') || jsonb_build_array(jsonb_build_array(v_name, v_value));
      END IF;
    END LOOP;
  END IF;
  IF p_message_id IS NOT NULL THEN
    headers := coalesce(headers, '[]') || jsonb_build_array(jsonb_build_array(@ProtocolConstants.message_id_header@, p_message_id));
  END IF;
  IF v_fault IS NULL AND v_count > @peer_headers.max_items@ THEN
    v_fault := format('headers: there are %s, and a message has @peer_headers.max_items@ at most', v_count);
  END IF;
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = v_fault || '.',
      HINT = 'Give an object of strings, or of arrays of strings.';
  END IF;
END
