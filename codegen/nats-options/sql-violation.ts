import { sqlString } from "../sql/literal.js";
import { type Check, listChecks, type RuleCheck, type ValueCheck } from "./checks.js";
import { negate } from "./condition.js";
import { isHidden, type OptionsModel } from "./model.js";
import { conditionSql } from "./sql-condition.js";
import { type SqlFunction, textArray } from "./sql-function.js";

/** The core of the validator: the first violation of a set of options, or of the part of it that is known. */
export function violationFunction(model: OptionsModel): SqlFunction {
  const checks = listChecks(model);
  const names = (options: OptionsModel["options"]) => textArray(options.map(({ name }) => name));
  return {
    name: "nats_server_options_violation",
    parameters: [
      "options jsonb",
      "part text DEFAULT 'whole'",
      "OUT option_name text",
      "OUT sqlstate text",
      "OUT message text",
      "OUT detail text",
      "OUT hint text",
    ],
    traits: "IMMUTABLE PARALLEL SAFE",
    comment:
      "The first violation of a set of options, all null if there is none. The part is what is known of the set: " +
      "'whole' (server and user mapping together), 'server', 'user_mapping', or 'none' where no option is allowed.",
    body: `
DECLARE
  known CONSTANT text[] := ${names(model.options)};
  in_user_mapping CONSTANT text[] := ${names(model.options.filter((option) => option.userMapping))};
  -- Their values are never shown.
  hidden CONSTANT text[] := ${names(model.options.filter(isHidden))};
  allowed text[];
  typed jsonb;
  violated text;
  about text[];
BEGIN
  allowed := CASE part
    WHEN 'whole' THEN known
    WHEN 'server' THEN known
    WHEN 'user_mapping' THEN in_user_mapping
    WHEN 'none' THEN '{}'
  END;
  IF allowed IS NULL THEN
    RAISE EXCEPTION 'the part must be whole, server, user_mapping or none' USING ERRCODE = '22023';
  END IF;
  IF jsonb_typeof(options) IS DISTINCT FROM 'object' THEN
    sqlstate := '${model.sqlstates.value}';
    message := 'the options must be a JSON object';
    detail := 'The options are: ' || array_to_string(known, ', ') || '.';
    hint := 'Write them as {"name": value, ...}.';
    RETURN;
  END IF;

${namesSql(model)}

  typed := hawser.nats_server_options_typed(options);
  -- Null, which is not true, where an option is not set.
  violated := CASE
${checks.map((check) => `    WHEN ${violatedSql(check)} THEN ${sqlString(check.at)}`).join("\n")}
  END;
  IF violated IS NULL THEN
    RETURN;
  END IF;

  SELECT told.option_name, told.sqlstate, told.message, told.hint, told.about
  INTO option_name, sqlstate, message, hint, about
  FROM (VALUES
${checks.map(toldSql).join(",\n")}
  ) AS told (at, option_name, sqlstate, message, hint, about)
  WHERE told.at = violated;
  detail := CASE
    WHEN about IS NOT NULL THEN 'Given: ' || coalesce(
      (SELECT string_agg(name, ', ' ORDER BY position)
       FROM unnest(about) WITH ORDINALITY AS rule (name, position)
       WHERE options ? name),
      'none') || '.'
    WHEN option_name = ANY (hidden) THEN 'Its value is not shown.'
    ELSE hawser.nats_option_shown(options -> option_name)
  END;
END`,
  };
}

/** Names that are not allowed come first: whatever else is said could be about a mistyped one. */
function namesSql(model: OptionsModel): string {
  return `  SELECT name INTO option_name
  FROM jsonb_object_keys(options) AS name
  WHERE name <> ALL (allowed)
  ORDER BY name COLLATE "C"
  LIMIT 1;
  IF option_name IS NOT NULL THEN
    sqlstate := '${model.sqlstates.unknown}';
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
  END IF;`;
}

function toldSql(check: Check): string {
  const about = check.kind === "rule" ? textArray(check.rule.about) : "NULL::text[]";
  const texts = [check.at, check.option, check.sqlstate, check.message, check.hint];
  return `    (${texts.map(sqlString).join(", ")}, ${about})`;
}

function violatedSql(check: Check): string {
  return check.kind === "value" ? valueViolated(check) : ruleViolated(check);
}

function valueViolated({ of, keyword }: ValueCheck): string {
  const text = `typed ->> ${sqlString(of.name)}`;
  if (keyword === "type") {
    return `typed -> ${sqlString(of.name)} = 'null'`;
  }
  if (of.type === "integer") {
    return keyword === "minimum" ? `(${text})::numeric < ${of.minimum}` : `(${text})::numeric > ${of.maximum}`;
  }
  if (of.type === "string") {
    switch (keyword) {
      case "minLength":
        return `char_length(${text}) < ${of.minLength}`;
      case "maxLength":
        return `char_length(${text}) > ${of.maxLength}`;
      case "pattern":
        return `${text} !~ ${sqlString(of.pattern!.source)}`;
    }
  }
  throw new Error(`no SQL for ${keyword} of the ${of.type} option ${of.name}`);
}

/** What a user mapping lacks may stand on the server, so its options alone break no rule over several. */
function ruleViolated({ rule }: RuleCheck): string {
  const parts = rule.wholeOnly ? "part = 'whole'" : "part IN ('whole', 'server')";
  return `${parts} AND ${conditionSql(negate(rule.holds), "AND")}`;
}
