#variable_conflict use_column
DECLARE
  v_role CONSTANT text := coalesce(nullif(current_setting('role'), 'none'), session_user);
  v_roles CONSTANT text[] := hawser.callers_roles();
BEGIN
  DELETE FROM hawser_data.schedules AS s WHERE s.role = v_role AND s.name = unschedule.name;
  IF NOT FOUND THEN
    DELETE FROM hawser_data.schedules AS s WHERE s.name = unschedule.name AND (v_roles IS NULL OR s.role = ANY (v_roles));
  END IF;
  ended := FOUND;
  IF ended THEN
    PERFORM hawser.record_act('unschedule', unschedule.name, NULL, NULL);
  END IF;
END
