DECLARE
  v_length bigint;
BEGIN
  IF @plain writer@ THEN
    v_length := octet_length(@plain_payload@);
    RETURN 1000000000 + v_length;
  END IF;
  @checks@
  v_length := octet_length(@payload@);
  RETURN 2000000000 + v_length;
END
