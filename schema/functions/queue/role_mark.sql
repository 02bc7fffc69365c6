BEGIN
  SELECT concat_ws('/', coalesce(hawser.present_cluster()::text, '-'), r.oid, CASE WHEN hawser.may_enqueue(p_role, p_kind) THEN 'may' END)
    INTO mark
    FROM pg_roles AS r WHERE r.rolname = p_role::name;
END
