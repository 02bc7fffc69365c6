BEGIN
  limit_key := CASE
    WHEN p_header IS NULL THEN p_key
    ELSE (SELECT e.pair ->> 1 FROM jsonb_array_elements(p_headers) AS e (pair) WHERE lower((e.pair ->> 0) COLLATE "C") = p_header LIMIT 1)
  END;
END
