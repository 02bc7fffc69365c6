#variable_conflict use_column
BEGIN
  -- Names are cut: no act fails because of its record.
  INSERT INTO hawser_data.audit_records (action, object, count, details)
  VALUES (p_action, left(p_object, 255), p_count, nullif(jsonb_strip_nulls(p_details), '{}'))
  RETURNING audit_records.id INTO id;
END
