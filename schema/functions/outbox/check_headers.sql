DECLARE
  v_name text;
  v_value jsonb;
  v_fault text;
BEGIN
  checked := true;
  IF p_headers IS NULL THEN
    RETURN;
  END IF;
  IF jsonb_typeof(p_headers) <> 'object' THEN
    v_fault := 'headers must be a JSON object, and this is ' || jsonb_typeof(p_headers);
  ELSE
    FOR v_name, v_value IN
      SELECT h.key, v.value
        FROM jsonb_each(p_headers) AS h,
             jsonb_array_elements(CASE jsonb_typeof(h.value) WHEN 'array' THEN h.value ELSE jsonb_build_array(h.value) END) AS v
    LOOP
      v_fault := CASE
        WHEN v_name !~ '^[!-9;-~]+$' THEN
          format('headers: the name %s must be printable ASCII, without spaces and colons, and not empty', to_json(v_name))
        WHEN lower(v_name COLLATE "C") = 'nats-msg-id' THEN
          format('headers: %s is set by Hawser; give message_id instead', to_json(v_name))
        WHEN jsonb_typeof(v_value) <> 'string' THEN
          format('headers: %s must be a string or an array of strings, and has %s', to_json(v_name), jsonb_typeof(v_value))
        WHEN v_value #>> '{}' ~ E'[\r\n]' THEN
          format('headers: the value of %s must not have CR or LF', to_json(v_name))
      END;
      EXIT WHEN v_fault IS NOT NULL;
    END LOOP;
  END IF;
  IF v_fault IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = hawser.error_sqlstate('invalid_argument'),
      MESSAGE = v_fault || '.',
      HINT = 'Give an object of strings, or of arrays of strings.';
  END IF;
END
