#variable_conflict use_column
DECLARE
  v_role CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_bucket CONSTANT integer := hashtextextended(p_destination || ' ' || p_key, 0) & 4095;
BEGIN
  IF (octet_length(p_key) <= @enqueued_key.max_bytes@ AND p_key ~ @enqueued_key.pattern@) IS NOT TRUE THEN
    PERFORM hawser.refuse_argument(
      'hawser.enqueue', 'key', to_json(left(p_key, 60))::text,
      'must be @enqueued_key.min_bytes@ to @enqueued_key.max_bytes@ bytes long in UTF-8, without control characters'
    );
  END IF;
  -- The role has buckets of its own, so that it can hold up nobody else.
  PERFORM FROM hawser_data.enqueue_keys AS k WHERE k.role = v_role AND k.bucket = v_bucket FOR UPDATE;
  IF NOT FOUND THEN
    -- All at once: a transaction with REPEATABLE READ cannot lock what others make behind its snapshot.
    INSERT INTO hawser_data.enqueue_keys (role, bucket)
    SELECT v_role, b FROM generate_series(0, 4095) AS b ON CONFLICT DO NOTHING;
    PERFORM FROM hawser_data.enqueue_keys AS k WHERE k.role = v_role AND k.bucket = v_bucket FOR UPDATE;
  END IF;
  locked := true;
END
