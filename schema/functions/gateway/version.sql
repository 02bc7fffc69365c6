BEGIN
  -- Known here: neither hawser.gateway_call nor a gateway is needed.
  RETURN QUERY SELECT '@version@'::text, NULL::text, NULL::text, NULL::text, 'v@version@'::text;
END
