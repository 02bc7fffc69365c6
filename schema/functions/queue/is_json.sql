BEGIN
  is_json := convert_from(p_payload, 'UTF8')::json IS NOT NULL;
EXCEPTION
  WHEN data_exception OR program_limit_exceeded THEN
    is_json := false;
END
