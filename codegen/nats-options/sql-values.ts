import { sqlString } from "../sql/literal.js";
import { booleanPattern, farNumber, integerPattern, maxDigits, maxShownLength, maxSuggestedLength } from "./grammar.js";
import type { Option, OptionsModel } from "./model.js";
import { type SqlFunction, textLines } from "./sql-function.js";

const pure = "IMMUTABLE PARALLEL SAFE STRICT";

/** SQL functions that read and show single values, equivalent to runtime/check.ts. */
export function coercionFunctions(model: OptionsModel): SqlFunction[] {
  return [...valueFunctions, typedFunction(model)];
}

const valueFunctions: readonly SqlFunction[] = [
  {
    name: "nats_option_integer",
    parameters: ["value jsonb"],
    returns: "jsonb",
    traits: pure,
    comment: "The value of an integer option as a JSON number, or JSON null if it is not a whole number.",
    body: `
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
    parts := CASE jsonb_typeof(value) WHEN 'string' THEN regexp_match(value #>> '{}', ${sqlString(integerPattern)}) END;
    IF parts IS NULL THEN
      RETURN 'null';
    END IF;
    -- A text of digits can have any length: a number of more than ${maxDigits} digits is outside every range.
    number := CASE WHEN char_length(parts[2]) > ${maxDigits} THEN ${farNumber} ELSE parts[2]::numeric END;
    IF parts[1] = '-' THEN
      number := -number;
    END IF;
  END IF;
  RETURN to_jsonb(trunc(greatest(least(number, ${farNumber}), -${farNumber})));
END`,
  },
  {
    name: "nats_option_boolean",
    parameters: ["value jsonb"],
    returns: "jsonb",
    traits: pure,
    comment:
      "The value of a boolean option as a JSON boolean, or JSON null if it is not one. Spellings as Postgres takes them.",
    body: `
DECLARE
  spelling text := value #>> '{}';
BEGIN
  IF jsonb_typeof(value) = 'boolean' THEN
    RETURN value;
  ELSIF jsonb_typeof(value) <> 'string' THEN
    RETURN 'null';
  ELSIF spelling ~ ${sqlString(booleanPattern(true))} THEN
    RETURN 'true';
  ELSIF spelling ~ ${sqlString(booleanPattern(false))} THEN
    RETURN 'false';
  END IF;
  RETURN 'null';
END`,
  },
  {
    name: "nats_option_text",
    parameters: ["value jsonb"],
    returns: "jsonb",
    traits: pure,
    comment: "The value of a text option as it is, or JSON null if it is not a JSON string.",
    body: `
BEGIN
  RETURN CASE jsonb_typeof(value) WHEN 'string' THEN value ELSE 'null' END;
END`,
  },
  {
    name: "nats_option_quoted",
    parameters: ["value text"],
    returns: "text",
    traits: pure,
    comment: `A text for a message: as JSON quotes it, cut to ${maxShownLength} characters.`,
    body: `
BEGIN
  RETURN to_json(CASE WHEN char_length(value) > ${maxShownLength} THEN left(value, ${maxShownLength}) || '...' ELSE value END)::text;
END`,
  },
  {
    name: "nats_option_shown",
    parameters: ["value jsonb"],
    returns: "text",
    traits: pure,
    comment: "The detail of a violation that shows a value. Only for options whose values are no secrets.",
    body: `
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
      IF abs(value::numeric) > ${farNumber} THEN
        RETURN 'Its value has more than ${maxDigits} digits.';
      ELSIF value::numeric <> trunc(value::numeric) THEN
        RETURN 'Its value is a fraction.';
      END IF;
      RETURN 'Its value is ' || trunc(value::numeric) || '.';
    WHEN 'boolean' THEN
      RETURN 'Its value is ' || value::text || '.';
    ELSE
      RETURN 'Its value is null, a list or an object.';
  END CASE;
END`,
  },
];

function typedFunction(model: OptionsModel): SqlFunction {
  const named = (type: Option["type"]) =>
    model.options.filter((option) => option.type === type).map(({ name }) => name);
  return {
    name: "nats_server_options_typed",
    parameters: ["options jsonb"],
    returns: "jsonb",
    traits: pure,
    comment:
      "The known options in their own types, with JSON null where a value has another type. Checks nothing else.",
    body: `
DECLARE
  integers CONSTANT text[] := ${textLines(named("integer"))};
  booleans CONSTANT text[] := ${textLines(named("boolean"))};
  texts CONSTANT text[] := ${textLines(named("string"))};
BEGIN
  RETURN (
    SELECT coalesce(jsonb_object_agg(name, typed), '{}')
    FROM jsonb_each(options) AS option (name, value),
      LATERAL (SELECT CASE
        WHEN name = ANY (integers) THEN hawser.nats_option_integer(value)
        WHEN name = ANY (booleans) THEN hawser.nats_option_boolean(value)
        WHEN name = ANY (texts) THEN hawser.nats_option_text(value)
      END AS typed) AS coerced
    WHERE typed IS NOT NULL
  );
END`,
  };
}

/** Suggestion for a mistyped name, with the same distance and choice as runtime/suggest.ts. */
export function suggestionFunction(): SqlFunction {
  return {
    name: "nats_option_suggestion",
    parameters: ["name text", "known text[]"],
    returns: "text",
    traits: "IMMUTABLE PARALLEL SAFE STRICT",
    comment:
      "The known name that a mistyped one probably meant: the one with the fewest changed, missing, added or swapped " +
      "characters, at most two fifths of its length; null if none is close.",
    body: `
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
  IF mistyped_length > ${maxSuggestedLength} THEN
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
END`,
  };
}
