BEGIN
  RETURN ARRAY(SELECT octet_length(n.note)::bigint FROM unnest(@payloads@) WITH ORDINALITY AS n (note, nth) ORDER BY n.nth);
END
