-- To the end of the transaction. A database with `on`, `remote_write` or `remote_apply` keeps what it has.
BEGIN
  changed := current_setting('synchronous_commit') IN ('off', 'local') AND set_config('synchronous_commit', 'on', true) IS NOT NULL;
END
