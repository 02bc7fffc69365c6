DECLARE
  v_mark CONSTANT text[] := string_to_array(p_mark, '/');
  v_id CONSTANT text := (SELECT r.oid::text FROM pg_roles AS r WHERE r.rolname = p_role::name);
BEGIN
  fault := CASE
    WHEN v_id IS NULL THEN format('there is no role %s any more', to_json(p_role))
    -- Roles have other ids in another cluster, such as one where a dump was restored.
    WHEN v_mark[2] <> v_id AND v_mark[1] = coalesce(hawser.present_cluster()::text, '-') THEN
      format('the role %s is another one now, of the same name', to_json(p_role))
    -- A function of another role may have enqueued for one that may not.
    WHEN v_mark[3] = 'may' AND NOT hawser.may_enqueue(p_role, p_kind) THEN
      format('the role %s may not enqueue for %s any more', to_json(p_role), CASE p_kind WHEN 'nats' THEN 'NATS' ELSE 'peers' END)
  END;
END
