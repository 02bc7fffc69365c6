DECLARE
  -- Inside a function that is SECURITY DEFINER, current_user is the owner of that.
  v_caller CONSTANT text := CASE current_setting('role') WHEN 'none' THEN session_user::text ELSE current_setting('role') END;
BEGIN
  IF NOT pg_has_role(v_caller, (SELECT n.nspowner FROM pg_namespace AS n WHERE n.nspname = 'hawser'), 'MEMBER') THEN
    roles := ARRAY(SELECT r.rolname::text FROM pg_roles AS r WHERE pg_has_role(v_caller, r.oid, 'MEMBER'));
  END IF;
END
