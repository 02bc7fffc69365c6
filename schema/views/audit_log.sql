SELECT a.id, a.at, a.login, a.role, a.application, a.action, a.object, a.count,
       -- Ids and keys are for those who may read messages, as in later_messages.
       CASE WHEN has_table_privilege('hawser.dead_letters', 'SELECT') THEN a.details END AS details
  FROM hawser_data.audit_records AS a
