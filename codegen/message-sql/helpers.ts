/**
 * Functions that all messages share, in the schema of the messages: varints, bytes of floats, JSON values, and
 * refusals.
 */
import { errorTable } from "../../generated/ts/errors/errors.js";
import { sqlString } from "../sql/literal.js";
import { bytesLiteral, quoted } from "./names.js";
import type { SqlOptions } from "./options.js";

/** Generated function. */
export interface MadeFunction {
  /** Name without schema and quotes. */
  readonly name: string;
  /** Signature with the schema, as GRANT names it: `"messages"."hawser_varint"(bigint)`. */
  readonly signature: string;
  /** CREATE OR REPLACE FUNCTION. */
  readonly create: string;
  readonly comment: string;
}

/** Parts of a function. */
export interface FunctionParts {
  readonly options: SqlOptions;
  readonly name: string;
  /** Parameters, such as `tenant text DEFAULT NULL`. */
  readonly parameters: readonly string[];
  /** Types of the parameters, as in the signature. */
  readonly types: readonly string[];
  readonly returns: string;
  /** `LANGUAGE …` and the other properties between RETURNS and the body. */
  readonly properties: string;
  /** Body: `AS $$…$$` or `RETURN …`. */
  readonly body: string;
  readonly comment: string;
}

/** Properties of a function without side effects, with a pinned search_path. */
export const pure = "LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp";
/** Properties of a pure function that catches errors: that starts a subtransaction, which parallel workers may not. */
export const pureWithCatch = "LANGUAGE plpgsql IMMUTABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp";

/** Assembles a function. */
export function madeFunction(parts: FunctionParts): MadeFunction {
  const name = `${quoted(parts.options.schema)}.${quoted(parts.name)}`;
  const body = withSafeQuotes(parts.body);
  const parameters =
    parts.parameters.length > 3 ? `\n  ${parts.parameters.join(",\n  ")}\n` : parts.parameters.join(", ");
  return {
    name: parts.name,
    signature: `${name}(${parts.types.join(", ")})`,
    create: `CREATE OR REPLACE FUNCTION ${name}(${parameters})\nRETURNS ${parts.returns}\n${parts.properties}\n${body};`,
    comment: parts.comment,
  };
}

/**
 * Chooses a dollar quote that the body does not contain: a user's text, such as a pattern, may contain the usual one.
 */
function withSafeQuotes(body: string): string {
  const mark = "$function$";
  if (body.indexOf(mark, body.indexOf(mark) + mark.length) === body.lastIndexOf(mark)) return body;
  let other = mark;
  for (let n = 1; body.includes(other); n++) other = `$function${n}$`;
  const [start, end] = [body.indexOf(mark), body.lastIndexOf(mark)];
  const inner = body.slice(start + mark.length, end);
  return `${body.slice(0, start)}${other}${inner}${other}${body.slice(end + mark.length)}`;
}

/** Helpers; their names begin with `hawser_`. */
export function helperFunctions(options: SqlOptions): MadeFunction[] {
  const own = (name: string): string => `${quoted(options.schema)}.${quoted(`hawser_${name}`)}`;
  const helper = (
    name: string,
    types: readonly string[],
    returns: string,
    body: string,
    comment: string,
    properties = `${pure} STRICT`,
  ): MadeFunction =>
    madeFunction({
      options,
      name: `hawser_${name}`,
      parameters: types,
      types,
      returns,
      properties,
      body: `AS $function$\n${body}\n$function$`,
      comment,
    });
  const refuse = own("refuse");
  return [
    helper(
      "refuse",
      ["text", "text"],
      "boolean",
      `BEGIN
  RAISE EXCEPTION USING
    ERRCODE = ${sqlString(errorTable.invalid_message.sqlstate)},
    MESSAGE = $1 || ': ' || $2,
    HINT = ${sqlString(errorTable.invalid_message.remedy)};
END`,
      "Refuses a message: the field, and what is wrong with it.",
      "LANGUAGE plpgsql VOLATILE PARALLEL SAFE SET search_path = pg_catalog, pg_temp",
    ),
    helper(
      "varint",
      ["bigint"],
      "bytea",
      `DECLARE
  v_rest bigint := $1;
  v_bytes bytea := '';
BEGIN
  -- A negative number has ten bytes: its sign is shifted like the other bits.
  WHILE v_rest NOT BETWEEN 0 AND 127 LOOP
    v_bytes := v_bytes || set_byte(${bytesLiteral([0])}, 0, (v_rest & 127)::integer | 128);
    v_rest := (v_rest >> 7) & 144115188075855871;
  END LOOP;
  RETURN v_bytes || set_byte(${bytesLiteral([0])}, 0, v_rest::integer);
END`,
      "The bytes of a varint.",
    ),
    helper(
      "sized",
      ["bytea"],
      "bytea",
      `BEGIN
  RETURN ${own("varint")}(octet_length($1)::bigint) || $1;
END`,
      "Bytes behind their length.",
    ),
    helper(
      "varints",
      ["bytea"],
      "bigint[]",
      `DECLARE
  v_payload CONSTANT bytea := $1 || ''::bytea;
  v_end CONSTANT integer := octet_length($1);
  v_at integer := 0;
  v_byte integer;
  v_shift integer;
  v_n bigint;
  v_all bigint[] := '{}';
BEGIN
  WHILE v_at < v_end LOOP
    v_n := 0;
    v_shift := 0;
    LOOP
      v_byte := get_byte(v_payload, v_at);
      v_at := v_at + 1;
      v_n := v_n | ((v_byte & 127)::bigint << v_shift);
      EXIT WHEN v_byte < 128;
      v_shift := v_shift + 7;
      IF v_shift > 63 THEN
        RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = 'a varint has more than 10 bytes';
      END IF;
    END LOOP;
    v_all := v_all || v_n;
  END LOOP;
  RETURN v_all;
END`,
      "The varints of a packed list.",
    ),
    helper(
      "unsigned",
      ["bigint"],
      "numeric",
      `BEGIN
  RETURN CASE WHEN $1 < 0 THEN $1 + 18446744073709551616::numeric ELSE $1::numeric END;
END`,
      "64 bits as a number without a sign.",
    ),
    helper(
      "uint64",
      ["numeric", "text"],
      "bigint",
      `BEGIN
  IF $1 NOT BETWEEN 0 AND 18446744073709551615 THEN
    PERFORM ${refuse}($2, 'must be between 0 and 18446744073709551615, and is ' || $1::text);
  END IF;
  RETURN CASE WHEN $1 > 9223372036854775807 THEN ($1 - 18446744073709551616)::bigint ELSE $1::bigint END;
END`,
      "The 64 bits of a number without a sign; and the field, for the error.",
    ),
    helper(
      "uint32",
      ["bigint", "text"],
      "bigint",
      `BEGIN
  IF $1 NOT BETWEEN 0 AND 4294967295 THEN
    PERFORM ${refuse}($2, 'must be between 0 and 4294967295, and is ' || $1::text);
  END IF;
  RETURN $1;
END`,
      "A number of 32 bits without a sign; and the field, for the error.",
    ),
    helper(
      "reversed",
      ["bytea"],
      "bytea",
      `BEGIN
  RETURN CASE octet_length($1)
    WHEN 4 THEN substr($1, 4, 1) || substr($1, 3, 1) || substr($1, 2, 1) || substr($1, 1, 1)
    ELSE substr($1, 8, 1) || substr($1, 7, 1) || substr($1, 6, 1) || substr($1, 5, 1)
      || substr($1, 4, 1) || substr($1, 3, 1) || substr($1, 2, 1) || substr($1, 1, 1)
  END;
END`,
      "4 or 8 bytes, the last one first.",
    ),
    helper(
      "bits",
      ["bytea"],
      "bigint",
      `BEGIN
  RETURN get_byte($1, 0)::bigint | (get_byte($1, 1)::bigint << 8) | (get_byte($1, 2)::bigint << 16)
    | (get_byte($1, 3)::bigint << 24)
    | CASE WHEN octet_length($1) < 8 THEN 0 ELSE
        (get_byte($1, 4)::bigint << 32) | (get_byte($1, 5)::bigint << 40)
        | (get_byte($1, 6)::bigint << 48) | (get_byte($1, 7)::bigint << 56)
      END;
END`,
      "4 or 8 bytes, the least one first, as a number.",
    ),
    helper(
      "double",
      ["bigint"],
      "double precision",
      `DECLARE
  v_exponent CONSTANT integer := (($1 >> 52) & 2047)::integer;
  v_fraction CONSTANT double precision := ($1 & 4503599627370495)::double precision;
  v_sign CONSTANT double precision := CASE WHEN $1 < 0 THEN -1 ELSE 1 END;
BEGIN
  -- Products with powers of two: each is exact.
  RETURN CASE
    WHEN v_exponent = 2047 AND v_fraction = 0 THEN v_sign * 'Infinity'::double precision
    WHEN v_exponent = 2047 THEN 'NaN'
    WHEN v_exponent = 0 THEN v_sign * v_fraction * 2.2250738585072014e-308 * 2.220446049250313e-16
    ELSE v_sign * (1 + v_fraction / 4503599627370496) * power(2::double precision, (v_exponent - 1023)::double precision)
  END;
END`,
      "The bits of a double.",
    ),
    helper(
      "float",
      ["bigint"],
      "real",
      `DECLARE
  v_exponent CONSTANT integer := (($1 >> 23) & 255)::integer;
  v_fraction CONSTANT double precision := ($1 & 8388607)::double precision;
  v_sign CONSTANT double precision := CASE WHEN ($1 & 2147483648) <> 0 THEN -1 ELSE 1 END;
BEGIN
  RETURN CASE
    WHEN v_exponent = 255 AND v_fraction = 0 THEN v_sign * 'Infinity'::double precision
    WHEN v_exponent = 255 THEN 'NaN'
    WHEN v_exponent = 0 THEN v_sign * v_fraction * power(2::double precision, -149::double precision)
    ELSE v_sign * (1 + v_fraction / 8388608) * power(2::double precision, (v_exponent - 127)::double precision)
  END;
END`,
      "The bits of a float.",
    ),
    helper(
      "pair",
      ["bigint", "bigint"],
      "bytea",
      `BEGIN
  RETURN CASE WHEN $1 = 0 THEN ''::bytea ELSE ${bytesLiteral([8])} || ${own("varint")}($1) END
    || CASE WHEN $2 = 0 THEN ''::bytea ELSE ${bytesLiteral([16])} || ${own("varint")}($2) END;
END`,
      "A message of two numbers: seconds and nanoseconds.",
    ),
    helper(
      "encode_timestamp",
      ["timestamptz", "text"],
      "bytea",
      `DECLARE
  v_us bigint;
  v_part bigint;
BEGIN
  IF $1 NOT BETWEEN timestamptz '0001-01-01 00:00:00+00' AND timestamptz '9999-12-31 23:59:59.999999+00' THEN
    PERFORM ${refuse}($2, 'must be between the years 1 and 9999, and is ' || $1::text);
  END IF;
  v_us := (extract(epoch FROM $1) * 1000000)::bigint;
  v_part := ((v_us % 1000000) + 1000000) % 1000000;
  RETURN ${own("pair")}((v_us - v_part) / 1000000, v_part * 1000);
END`,
      "A google.protobuf.Timestamp.",
    ),
    helper(
      "timestamp",
      ["bigint", "bigint"],
      "timestamptz",
      `BEGIN
  IF $1 NOT BETWEEN -62135596800 AND 253402300799 OR $2 NOT BETWEEN 0 AND 999999999 THEN
    RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = format('%s s and %s ns are no timestamp', $1, $2);
  END IF;
  RETURN timestamptz '1970-01-01 00:00:00+00' + $1 * interval '1 second' + ($2 / 1000) * interval '1 microsecond';
END`,
      "Of seconds and nanoseconds.",
    ),
    helper(
      "encode_duration",
      ["interval", "text"],
      "bytea",
      `DECLARE
  v_us bigint;
BEGIN
  IF extract(year FROM $1) <> 0 OR extract(month FROM $1) <> 0 THEN
    PERFORM ${refuse}($2, 'must have no months and years, whose lengths differ, and is ' || $1::text);
  END IF;
  IF $1 NOT BETWEEN interval '-87660000 hours' AND interval '87660000 hours' THEN
    PERFORM ${refuse}($2, 'must be at most 315576000000 seconds, and is ' || $1::text);
  END IF;
  v_us := (extract(epoch FROM $1) * 1000000)::bigint;
  RETURN ${own("pair")}(v_us / 1000000, v_us % 1000000 * 1000);
END`,
      "A google.protobuf.Duration. A day has 24 hours.",
    ),
    helper(
      "duration",
      ["bigint", "bigint"],
      "interval",
      `BEGIN
  IF $1 NOT BETWEEN -315576000000 AND 315576000000 OR $2 NOT BETWEEN -999999999 AND 999999999 OR sign($1) * sign($2) < 0 THEN
    RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = format('%s s and %s ns are no duration', $1, $2);
  END IF;
  RETURN $1 * interval '1 second' + ($2 / 1000) * interval '1 microsecond';
END`,
      "Of seconds and nanoseconds.",
    ),
    ...jsonHelpers(helper, own),
  ];
}

/**
 * Helpers for values of protobuf JSON. An invalid value raises an error of class 22, to which the message's function
 * adds the field.
 */
function jsonHelpers(
  helper: (name: string, types: readonly string[], returns: string, body: string, comment: string) => MadeFunction,
  own: (name: string) => string,
): MadeFunction[] {
  const wrong = (what: string): string => `RAISE EXCEPTION USING ERRCODE = 'data_exception',
      MESSAGE = format('must be ${what}, and is %s', left($1::text, 60));`;
  return [
    helper(
      "json_text",
      ["jsonb"],
      "text",
      `BEGIN
  IF jsonb_typeof($1) <> 'string' THEN
    ${wrong("a string")}
  END IF;
  RETURN $1 #>> '{}';
END`,
      "A string of JSON.",
    ),
    helper(
      "json_boolean",
      ["jsonb"],
      "boolean",
      `BEGIN
  IF jsonb_typeof($1) <> 'boolean' THEN
    ${wrong("true or false")}
  END IF;
  RETURN $1::boolean;
END`,
      "A boolean of JSON.",
    ),
    helper(
      "json_bytes",
      ["jsonb"],
      "bytea",
      `DECLARE
  v_text CONSTANT text := rtrim(translate(${own("json_text")}($1), '-_', '+/'), '=');
BEGIN
  RETURN decode(v_text || repeat('=', (4 - length(v_text) % 4) % 4), 'base64');
END`,
      "Bytes in JSON: base64.",
    ),
    helper(
      "json_integer",
      ["jsonb", "numeric", "numeric"],
      "numeric",
      `DECLARE
  v_text CONSTANT text := $1 #>> '{}';
  v_n numeric;
BEGIN
  IF jsonb_typeof($1) NOT IN ('number', 'string') OR v_text !~ '^-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]{1,3})?$' THEN
    ${wrong("an integer")}
  END IF;
  v_n := v_text::numeric;
  IF v_n <> trunc(v_n) THEN
    ${wrong("an integer")}
  END IF;
  IF v_n NOT BETWEEN $2 AND $3 THEN
    RAISE EXCEPTION USING ERRCODE = 'data_exception',
      MESSAGE = format('must be between %s and %s, and is %s', $2, $3, left($1::text, 60));
  END IF;
  RETURN v_n;
END`,
      "An integer of JSON, between two others: a number, or a string with one.",
    ),
    helper(
      "json_double",
      ["jsonb"],
      "double precision",
      `DECLARE
  v_text CONSTANT text := $1 #>> '{}';
BEGIN
  IF jsonb_typeof($1) NOT IN ('number', 'string')
     OR v_text !~ '^(-?[0-9]+([.][0-9]+)?([eE][-+]?[0-9]+)?|NaN|-?Infinity)$' THEN
    ${wrong("a number")}
  END IF;
  RETURN v_text::double precision;
END`,
      "A number of JSON, or NaN, Infinity and -Infinity as strings.",
    ),
    helper(
      "json_timestamp",
      ["jsonb"],
      "timestamptz",
      `DECLARE
  v_text CONSTANT text := ${own("json_text")}($1);
  v_fraction CONSTANT text := rpad(coalesce(substring(v_text FROM '[.]([0-9]+)'), ''), 9, '0');
BEGIN
  IF v_text !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[-+][0-9]{2}:[0-9]{2})$' THEN
    ${wrong("a time such as 2026-11-22T03:40:00Z")}
  END IF;
  RETURN ${own("timestamp")}(
    extract(epoch FROM regexp_replace(v_text, '[.][0-9]+', '')::timestamptz)::bigint, v_fraction::bigint
  );
END`,
      "A google.protobuf.Timestamp in JSON.",
    ),
    helper(
      "json_duration",
      ["jsonb"],
      "interval",
      `DECLARE
  v_text CONSTANT text := ${own("json_text")}($1);
  v_sign CONSTANT bigint := CASE WHEN v_text LIKE '-%' THEN -1 ELSE 1 END;
BEGIN
  IF v_text !~ '^-?[0-9]{1,12}([.][0-9]{1,9})?s$' THEN
    ${wrong("a duration such as 1.5s")}
  END IF;
  RETURN ${own("duration")}(
    v_sign * substring(v_text FROM '^-?([0-9]+)')::bigint,
    v_sign * rpad(coalesce(substring(v_text FROM '[.]([0-9]+)'), ''), 9, '0')::bigint
  );
END`,
      "A google.protobuf.Duration in JSON.",
    ),
    helper(
      "json_items",
      ["jsonb"],
      "jsonb[]",
      `BEGIN
  IF jsonb_typeof($1) <> 'array' THEN
    ${wrong("a list")}
  END IF;
  RETURN ARRAY(SELECT e.value FROM jsonb_array_elements($1) WITH ORDINALITY AS e (value, n) ORDER BY e.n);
END`,
      "The elements of a list of JSON.",
    ),
    helper(
      "json_object",
      ["jsonb"],
      "jsonb",
      `BEGIN
  IF jsonb_typeof($1) <> 'object' THEN
    ${wrong("an object")}
  END IF;
  RETURN $1;
END`,
      "An object of JSON.",
    ),
  ];
}
