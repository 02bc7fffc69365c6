import { sqlString } from "../sql/literal.js";
import { type Limit, limitsOf, typeRule } from "./checks.js";
import { type Condition, isHidden, negate, type Option, type OptionsModel } from "./model.js";
import { jsonbConstant, type SqlFunction, textArray, textLines } from "./sql-function.js";

/** Core of the validator: finds the first violation of a set of options, or of the known part of a set. */
export function violationFunction(model: OptionsModel): SqlFunction {
  const names = (options: OptionsModel["options"]) => textLines(options.map(({ name }) => name));
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
  -- Options whose values are never shown.
  hidden CONSTANT text[] := ${names(model.options.filter(isHidden))};
  allowed text[];
  typed jsonb;
  violated text[];
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
  -- The option, the SQLSTATE, the message and the hint; then the options that a rule over several options reads.
  -- A condition on an option that is not set is null, which counts as false.
  violated := CASE
${violations(model).join("\n")}
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
    WHEN option_name = ANY (hidden) THEN 'Its value is not shown.'
    ELSE hawser.nats_option_shown(options -> option_name)
  END;
END`,
  };
}

/** Checks the names first, because any other violation could stem from a mistyped name. */
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

/** Branches of the CASE that finds the first violation, in the order of `checkOptions`. */
function violations(model: OptionsModel): string[] {
  const ofValue = (option: Option, condition: string, rule: string) =>
    branch(condition, [option.name, model.sqlstates.value, `option "${option.name}" ${rule}`, option.remedy]);
  return [
    ...model.options.map((option) => ofValue(option, `typed -> ${sqlString(option.name)} = 'null'`, typeRule(option))),
    ...model.rules.map(({ wholeOnly, holds, violation, about }) => {
      // The server may have the options that a user mapping lacks, so rules over several options do not apply to a user
      // mapping alone.
      const parts = wholeOnly ? "part = 'whole'" : "part IN ('whole', 'server')";
      const { option, kind, message, hint } = violation;
      const fields = [option, model.sqlstates[kind], message, hint, ...about];
      return branch(`${parts} AND ${conditionSql(negate(holds), "AND")}`, fields);
    }),
    ...model.options.flatMap((option) =>
      limitsOf(option).map((limit) =>
        ofValue(option, beyond(`typed ->> ${sqlString(option.name)}`, limit), limit.rule),
      ),
    ),
  ];
}

function branch(condition: string, fields: readonly string[]): string {
  return `    WHEN ${condition} THEN\n      ${textArray(fields)}`;
}

function beyond(text: string, { keyword, limit }: Limit): string {
  switch (keyword) {
    case "minLength":
      return `char_length(${text}) < ${limit}`;
    case "maxLength":
      return `char_length(${text}) > ${limit}`;
    case "minimum":
      return `(${text})::numeric < ${limit}`;
    case "maximum":
      return `(${text})::numeric > ${limit}`;
    case "pattern":
      return `${text} !~ ${sqlString(limit)}`;
  }
}

/**
 * Condition of a rule over the jsonb variable `typed`; never null.
 *
 * @param beside the operator next to the condition, which decides whether it needs parentheses
 */
function conditionSql(condition: Condition, beside?: "AND" | "OR"): string {
  switch (condition.kind) {
    case "has":
      return `typed ? ${sqlString(condition.option)}`;
    case "unset-or":
      return `coalesce(typed -> ${sqlString(condition.option)} = ${jsonbConstant(condition.value)}, true)`;
    case "not":
      return `NOT (${conditionSql(condition.of)})`;
    case "all":
      return joined(condition.of, "AND", beside);
    case "any":
      return joined(condition.of, "OR", beside);
  }
}

function joined(parts: readonly Condition[], word: "AND" | "OR", beside: "AND" | "OR" | undefined): string {
  const sql = parts.map((part) => conditionSql(part, word)).join(` ${word} `);
  return beside === undefined || beside === word ? sql : `(${sql})`;
}
