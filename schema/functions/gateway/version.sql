BEGIN
  RETURN QUERY SELECT '@version@'::text, NULL::text, NULL::text, NULL::text, 'v@version@'::text;
END
