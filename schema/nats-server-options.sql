-- Functions for the options of the NATS server. The generator fills in what is between @ and @ from the JSON Schema beside,
-- and makes the functions in the schemas hawser and hawser_fdw. Superusers call those of hawser_fdw, so none of them may
-- call one that belongs to the owner of the schema hawser, who may be no superuser. src/nats/connections/server-options.ts and
-- src/foundation/errors/suggestion.ts say the same of the same options.

CREATE OR REPLACE FUNCTION hawser.nats_option_table(
  OUT name text,
  OUT type text,
  OUT in_user_mapping boolean,
  OUT hidden boolean,
  OUT initial jsonb
)
RETURNS SETOF record
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
@settings@
AS $function$
BEGIN
  RETURN QUERY VALUES
@options@;
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_table() IS 'The options in their order: whether a user mapping may have one, whether its value is never shown, and its default.';

CREATE OR REPLACE FUNCTION hawser.nats_option_integer(
  value jsonb
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
@settings@
AS $function$
DECLARE
  parts text[];
  number numeric;
BEGIN
  IF jsonb_typeof(value) = 'number' THEN
    number := value::numeric;
    IF number <> trunc(number) THEN
      RETURN 'null';
    END IF;
  ELSE
    parts := CASE jsonb_typeof(value) WHEN 'string' THEN regexp_match(value #>> '{}', E'^[\\u0009-\\u000d\\u0020]*([+-]?)0*([0-9]+)[\\u0009-\\u000d\\u0020]*$') END;
    IF parts IS NULL THEN
      RETURN 'null';
    END IF;
    -- A text of digits can have any length: a number of more than 15 digits is outside every range.
    number := CASE WHEN char_length(parts[2]) > 15 THEN 9007199254740991 ELSE parts[2]::numeric END;
    IF parts[1] = '-' THEN
      number := -number;
    END IF;
  END IF;
  RETURN to_jsonb(trunc(greatest(least(number, 9007199254740991), -9007199254740991)));
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_integer(jsonb) IS 'The value of an integer option as a JSON number, or JSON null if it is not a whole number.';

CREATE OR REPLACE FUNCTION hawser.nats_option_boolean(
  value jsonb
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
@settings@
AS $function$
DECLARE
  -- Only A to Z are lowered, whatever the database's locale.
  spelling CONSTANT text := translate(
    btrim(value #>> '{}', E' \t\n\x0b\f\r'), 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz');
BEGIN
  IF jsonb_typeof(value) = 'boolean' THEN
    RETURN value;
  ELSIF jsonb_typeof(value) <> 'string' THEN
    RETURN 'null';
  ELSIF spelling IN ('t', 'tr', 'tru', 'true', 'y', 'ye', 'yes', 'on', '1') THEN
    RETURN 'true';
  ELSIF spelling IN ('f', 'fa', 'fal', 'fals', 'false', 'n', 'no', 'of', 'off', '0') THEN
    RETURN 'false';
  END IF;
  RETURN 'null';
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_boolean(jsonb) IS 'The value of a boolean option as a JSON boolean, or JSON null if it is not one. Spellings as Postgres takes them.';

CREATE OR REPLACE FUNCTION hawser.nats_option_quoted(
  value text
)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
@settings@
AS $function$
BEGIN
  RETURN to_json(CASE WHEN char_length(value) > 60 THEN left(value, 60) || '...' ELSE value END)::text;
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_quoted(text) IS 'A text for a message: as JSON quotes it, cut to 60 characters.';

CREATE OR REPLACE FUNCTION hawser.nats_option_shown(
  value jsonb
)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
@settings@
AS $function$
BEGIN
  CASE jsonb_typeof(value)
    WHEN 'string' THEN
      -- An address may contain a user name and a password.
      IF strpos(value #>> '{}', '@') > 0 THEN
        RETURN 'Its value is not shown.';
      END IF;
      RETURN 'Its value is ' || hawser.nats_option_quoted(value #>> '{}') || '.';
    WHEN 'number' THEN
      -- Beyond this limit, JavaScript and Postgres may differ in a number's last digits.
      IF abs(value::numeric) > 9007199254740991 THEN
        RETURN 'Its value has more than 15 digits.';
      ELSIF value::numeric <> trunc(value::numeric) THEN
        RETURN 'Its value is a fraction.';
      END IF;
      RETURN 'Its value is ' || trunc(value::numeric) || '.';
    WHEN 'boolean' THEN
      RETURN 'Its value is ' || value::text || '.';
    ELSE
      RETURN 'Its value is null, a list or an object.';
  END CASE;
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_shown(jsonb) IS 'The detail of a violation that shows a value. Only for options whose values are no secrets.';

CREATE OR REPLACE FUNCTION hawser.nats_server_options_typed(
  options jsonb
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
@settings@
AS $function$
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(o.name, CASE
      WHEN o.type = 'integer' THEN hawser.nats_option_integer(options -> o.name)
      WHEN o.type = 'boolean' THEN hawser.nats_option_boolean(options -> o.name)
      WHEN jsonb_typeof(options -> o.name) = 'string' THEN options -> o.name
      ELSE 'null'
    END), '{}')
    FROM hawser.nats_option_table() AS o
    WHERE options ? o.name
  );
END
$function$;
COMMENT ON FUNCTION hawser.nats_server_options_typed(jsonb) IS 'The known options in their own types, with JSON null where a value has another type. Checks nothing else.';

CREATE OR REPLACE FUNCTION hawser.nats_option_suggestion(
  name text,
  known text[]
)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
@settings@
AS $function$
DECLARE
  -- Only A to Z are lowered: JavaScript lowers other letters differently.
  mistyped CONSTANT text[] := string_to_array(
    translate(name, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz'), NULL);
  mistyped_length CONSTANT integer := char_length(name);
  candidate text;
  letters text[];
  letter_count integer;
  before_last integer[];
  last integer[];
  row_now integer[];
  steps integer;
  best text;
  best_distance integer;
BEGIN
  IF mistyped_length > 63 THEN
    RETURN NULL;
  END IF;
  FOREACH candidate IN ARRAY known LOOP
    letters := string_to_array(candidate, NULL);
    letter_count := char_length(candidate);
    -- last[j + 1] is the distance from what was read of the mistyped name to the first j letters.
    before_last := NULL;
    last := ARRAY(SELECT generate_series(0, letter_count));
    FOR i IN 1 .. mistyped_length LOOP
      row_now := ARRAY[i];
      FOR j IN 1 .. letter_count LOOP
        steps := least(
          last[j + 1] + 1,
          row_now[j] + 1,
          last[j] + CASE WHEN mistyped[i] = letters[j] THEN 0 ELSE 1 END);
        IF i > 1 AND j > 1 AND mistyped[i] = letters[j - 1] AND mistyped[i - 1] = letters[j] THEN
          steps := least(steps, before_last[j - 1] + 1);
        END IF;
        row_now[j + 1] := steps;
      END LOOP;
      before_last := last;
      last := row_now;
    END LOOP;
    IF last[letter_count + 1] <= greatest(1, letter_count * 2 / 5)
      AND (best_distance IS NULL OR last[letter_count + 1] < best_distance)
    THEN
      best := candidate;
      best_distance := last[letter_count + 1];
    END IF;
  END LOOP;
  RETURN best;
END
$function$;
COMMENT ON FUNCTION hawser.nats_option_suggestion(text, text[]) IS 'The known name that a mistyped one probably meant: the one with the fewest changed, missing, added or swapped characters, at most two fifths of its length; null if none is close.';

CREATE OR REPLACE FUNCTION hawser.nats_server_options_violation(
  options jsonb,
  part text DEFAULT 'whole',
  OUT option_name text,
  OUT sqlstate text,
  OUT message text,
  OUT detail text,
  OUT hint text
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
@settings@
AS $function$
DECLARE
  known CONSTANT text[] := ARRAY(SELECT o.name FROM hawser.nats_option_table() AS o);
  allowed text[];
  typed jsonb;
  violated text[];
BEGIN
  allowed := CASE part
    WHEN 'whole' THEN known
    WHEN 'server' THEN known
    WHEN 'user_mapping' THEN ARRAY(SELECT o.name FROM hawser.nats_option_table() AS o WHERE o.in_user_mapping)
    WHEN 'none' THEN '{}'
  END;
  IF allowed IS NULL THEN
    RAISE EXCEPTION 'the part must be whole, server, user_mapping or none' USING ERRCODE = '22023';
  END IF;
  IF jsonb_typeof(options) IS DISTINCT FROM 'object' THEN
    sqlstate := 'HV024';
    message := 'the options must be a JSON object';
    detail := 'The options are: ' || array_to_string(known, ', ') || '.';
    hint := 'Write them as {"name": value, ...}.';
    RETURN;
  END IF;

  SELECT name INTO option_name
  FROM jsonb_object_keys(options) AS name
  WHERE name <> ALL (allowed)
  ORDER BY name COLLATE "C"
  LIMIT 1;
  IF option_name IS NOT NULL THEN
    sqlstate := 'HV00D';
    IF part = 'none' THEN
      message := 'option ' || hawser.nats_option_quoted(option_name) || ' is not allowed here';
      detail := 'Only the foreign server and its user mappings have options.';
      hint := 'Use CREATE SERVER or ALTER SERVER.';
    ELSIF option_name = ANY (known) THEN
      message := 'option ' || hawser.nats_option_quoted(option_name) || ' is not allowed in a user mapping';
      detail := 'The options are: ' || array_to_string(allowed, ', ') || '.';
      hint := 'Use ALTER SERVER: it belongs to the server.';
    ELSE
      message := 'unknown option ' || hawser.nats_option_quoted(option_name);
      detail := 'The options are: ' || array_to_string(allowed, ', ') || '.';
      hint := coalesce(
        'Did you mean "' || hawser.nats_option_suggestion(option_name, allowed) || '"?',
        'Use one of the options, or drop it.');
    END IF;
    RETURN;
  END IF;

  typed := hawser.nats_server_options_typed(options);
  -- The option, the SQLSTATE, the message and the hint; then the options that a rule over several options reads.
  violated := CASE
@rules@
  END;
  IF violated IS NULL THEN
    RETURN;
  END IF;
  option_name := violated[1];
  sqlstate := violated[2];
  message := violated[3];
  hint := violated[4];
  detail := CASE
    WHEN cardinality(violated) > 4 THEN 'Given: ' || coalesce(
      (SELECT string_agg(name, ', ' ORDER BY position)
       FROM unnest(violated[5:]) WITH ORDINALITY AS rule (name, position)
       WHERE options ? name),
      'none') || '.'
    WHEN (SELECT o.hidden FROM hawser.nats_option_table() AS o WHERE o.name = option_name) THEN 'Its value is not shown.'
    ELSE hawser.nats_option_shown(options -> option_name)
  END;
END
$function$;
COMMENT ON FUNCTION hawser.nats_server_options_violation(jsonb, text) IS 'The first violation of a set of options, all null if there is none. The part is what is known of the set: ''whole'' (server and user mapping together), ''server'', ''user_mapping'', or ''none'' where no option is allowed.';

CREATE OR REPLACE FUNCTION hawser.nats_server_options_check(
  options jsonb,
  part text DEFAULT 'whole'
)
RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
@settings@
AS $function$
DECLARE
  violation record;
BEGIN
  SELECT * INTO violation FROM hawser.nats_server_options_violation(options, part);
  IF violation.sqlstate IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = violation.sqlstate,
      MESSAGE = violation.message,
      DETAIL = violation.detail,
      HINT = violation.hint;
  END IF;
END
$function$;
COMMENT ON FUNCTION hawser.nats_server_options_check(jsonb, text) IS 'Raises the first violation of a set of options; see nats_server_options_violation.';

CREATE OR REPLACE FUNCTION hawser.nats_options_jsonb(
  options text[]
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
@settings@
AS $function$
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(option_name, option_value), '{}')
    FROM pg_options_to_table(options)
  );
END
$function$;
COMMENT ON FUNCTION hawser.nats_options_jsonb(text[]) IS 'Options as the catalogs keep them, name=value each (srvoptions, umoptions), as a JSON object of strings.';

-- Only in the schema hawser.

CREATE OR REPLACE FUNCTION hawser.nats_server_options(
  options jsonb
)
RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
@settings@
AS $function$
BEGIN
  PERFORM hawser.nats_server_options_check(options, 'whole');
  RETURN (SELECT jsonb_object_agg(o.name, o.initial) FROM hawser.nats_option_table() AS o WHERE o.initial IS NOT NULL)
    || hawser.nats_server_options_typed(options);
END
$function$;
COMMENT ON FUNCTION hawser.nats_server_options(jsonb) IS 'The options of server and user mapping put together, checked, in their own types and with the defaults. Raises the first violation.';

CREATE OR REPLACE FUNCTION hawser.nats_auth_mode(
  options jsonb
)
RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT
@settings@
AS $function$
BEGIN
  RETURN CASE
@modes@
  END;
END
$function$;
COMMENT ON FUNCTION hawser.nats_auth_mode(jsonb) IS 'How these options authenticate: the first mode whose options are all set.';

-- Only in the schema hawser_fdw.

CREATE OR REPLACE FUNCTION hawser.nats_fdw_validator(
  options text[],
  catalog oid
)
RETURNS void
LANGUAGE plpgsql STABLE
@settings@
AS $function$
BEGIN
  PERFORM hawser.nats_server_options_check(
    hawser.nats_options_jsonb(options),
    CASE catalog
      WHEN 'pg_catalog.pg_foreign_server'::regclass THEN 'server'
      WHEN 'pg_catalog.pg_user_mapping'::regclass THEN 'user_mapping'
      ELSE 'none'
    END);
END
$function$;
COMMENT ON FUNCTION hawser.nats_fdw_validator(text[], oid) IS 'The validator of the foreign data wrappers: checks the options of servers and user mappings.';
