BEGIN
  RETURN CASE WHEN urgent THEN -octet_length(@payload@) ELSE octet_length(@payload@) END;
END
