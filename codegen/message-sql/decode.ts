/**
 * Functions `decode_…` and `from_json_…`: convert a message in Protobuf, or in protobuf JSON, to a row of the composite
 * type.
 */
import { ScalarType } from "@bufbuild/protobuf";
import { sqlString } from "../sql/literal.js";
import { fullName, refuse } from "./encode.js";
import { type MadeFunction, madeFunction, pureWithCatch } from "./helpers.js";
import {
  entryFields,
  type FieldModel,
  fieldType,
  type MessageModel,
  qualified,
  typeOf,
  type ValueKind,
} from "./model.js";
import { indented, quoted } from "./names.js";
import type { SqlOptions } from "./options.js";
import { helperName, jsonValue, readValue, tagOf, wireTypeOf, wrapperName, zeroOf } from "./values.js";

/** SQLSTATE `invalid_message`: the error already names the field. */
const refused = "22P02";

/** Field, and the statements for a value of it, which is in `v_n` (a varint) or `v_bytes`. */
interface ReadField {
  readonly number: number;
  readonly value: ValueKind;
  /** Statements of one line each. */
  readonly found: readonly string[];
  /** Statements for several values of a packed list. */
  readonly packed?: readonly string[];
}

/**
 * Prints the loop that reads the fields of a message. The last value of a repeated number wins. Unknown fields are
 * skipped.
 */
function readLoop(fields: readonly ReadField[]): string {
  const cases = fields.flatMap(({ number, value, found, packed }) => [
    `      WHEN ${tagOf(number, wireTypeOf(value))} THEN\n        ${found.join("\n        ")}`,
    ...(packed === undefined ? [] : [`      WHEN ${tagOf(number, 2)} THEN\n        ${packed.join("\n        ")}`]),
  ]);
  const select = cases.length === 0 ? "" : `    CASE v_tag\n${cases.join("\n")}\n      ELSE NULL;\n    END CASE;\n`;
  return `  WHILE v_at < v_end LOOP
    v_tag := get_byte(v_payload, v_at);
    v_at := v_at + 1;
    IF v_tag > 127 THEN
      v_tag := v_tag & 127;
      v_shift := 7;
      LOOP
        v_byte := get_byte(v_payload, v_at);
        v_at := v_at + 1;
        v_tag := v_tag | ((v_byte & 127)::bigint << v_shift);
        EXIT WHEN v_byte < 128;
        v_shift := v_shift + 7;
        IF v_shift > 28 THEN
          RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = 'a tag has more than 5 bytes';
        END IF;
      END LOOP;
    END IF;
    v_wire := (v_tag & 7)::integer;
    IF v_wire IN (0, 2) THEN
      v_n := get_byte(v_payload, v_at);
      v_at := v_at + 1;
      IF v_n > 127 THEN
        v_n := v_n & 127;
        v_shift := 7;
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
      END IF;
    ELSIF v_wire IN (1, 5) THEN
      v_n := CASE v_wire WHEN 1 THEN 8 ELSE 4 END;
    ELSIF v_wire IN (3, 4) THEN
      -- Groups are skipped, since all their fields are unknown.
      v_depth := v_depth + CASE v_wire WHEN 3 THEN 1 ELSE -1 END;
      IF v_depth < 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = 'a group ends that was not started';
      END IF;
      CONTINUE;
    ELSE
      RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = format('the wire type %s is not known', v_wire);
    END IF;
    IF v_tag < 8 THEN
      RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = 'a field has the number 0';
    END IF;
    IF v_wire <> 0 THEN
      IF v_n NOT BETWEEN 0 AND v_end - v_at THEN
        RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = 'the payload ends within the field';
      END IF;
      v_bytes := substr(v_payload, v_at + 1, v_n::integer);
      v_at := v_at + v_n::integer;
    END IF;
    CONTINUE WHEN v_depth > 0;
${select}  END LOOP;
  IF v_depth > 0 THEN
    RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = 'a group does not end';
  END IF;
`;
}

const readVariables = `  -- A copy in memory: get_byte would decompress a compressed value for each byte.
  v_payload CONSTANT bytea := payload || ''::bytea;
  v_end CONSTANT integer := octet_length(payload);
  v_at integer := 0;
  v_tag bigint := 0;
  v_wire integer;
  v_n bigint;
  v_bytes bytea;
  v_byte integer;
  v_shift integer;
  v_depth integer := 0;
`;

/**
 * `decode_order_placed(payload bytea)`: returns the row. An error names the field that cannot be read. Rules are not
 * checked.
 */
export function decodeFunction(options: SqlOptions, message: MessageModel): MadeFunction {
  const type = qualified(options, message.name);
  const read = message.fields.map((field) => readField(options, message, field));
  const names = message.fields.map(({ number, desc }) => `      WHEN ${number} THEN ${sqlString(`.${desc.name}`)}`);
  const where = names.length === 0 ? "''" : `CASE v_tag >> 3\n${names.join("\n")}\n      ELSE ''\n    END`;
  return madeFunction({
    options,
    name: `decode_${message.name}`,
    parameters: ["payload bytea"],
    types: ["bytea"],
    returns: type,
    properties: `${pureWithCatch} STRICT`,
    body: `AS $function$
#variable_conflict use_column
DECLARE
${readVariables}  v ${type};
${read
  .flatMap(({ declare }) => declare ?? [])
  .map((line) => `  ${line}\n`)
  .join("")}BEGIN
${emptyRow(options, message)}${readLoop(read)}${read
  .flatMap(({ atEnd }) => atEnd)
  .map((line) => `  ${line}\n`)
  .join("")}  RETURN v;
EXCEPTION WHEN data_exception THEN
  IF SQLSTATE = ${sqlString(refused)} THEN
    RAISE;
  END IF;
  PERFORM ${helperName(options, "refuse")}(${sqlString(message.desc.typeName)} || ${indented(0, where)}, 'cannot be read: ' || SQLERRM);
END
$function$`,
    comment: `A ${message.desc.typeName} from its bytes. The rules are not checked.`,
  });
}

/** Prints the assignment of each field's absent value. An empty message is a row, not NULL. */
function emptyRow(options: SqlOptions, message: MessageModel): string {
  if (message.fields.length === 0) return `  v := ROW()::${qualified(options, message.name)};\n`;
  return message.fields
    .map((field) => {
      const empty = field.shape !== "single" ? "'{}'" : field.presence === "implicit" ? zeroOf(field.value) : "NULL";
      return `  v.${field.column} := ${empty};\n`;
    })
    .join("");
}

interface FieldReader extends ReadField {
  readonly declare?: string;
  readonly atEnd: readonly string[];
}

function readField(options: SqlOptions, message: MessageModel, field: FieldModel): FieldReader {
  const { number, column, value } = field;
  if (field.shape === "list") {
    const list = `v_${number}`;
    const wireType = wireTypeOf(value);
    const found = appended(list, isMessageValue(value), (bytes) => readValue(options, value, "v_n", bytes));
    const head = {
      number,
      value,
      found,
      declare: `${list} ${fieldType(options, field)} := '{}';`,
      atEnd: [`v.${column} := ${list};`],
    };
    if (wireType === 2) return head;
    const packed =
      wireType === 0
        ? [
            `FOREACH v_n IN ARRAY ${helperName(options, "varints")}(v_bytes) LOOP`,
            `  ${list} := array_append(${list}, ${readValue(options, value, "v_n", "NULL")});`,
            "END LOOP;",
          ]
        : packedFixed(options, list, value, wireType === 1 ? 8 : 4);
    return { ...head, packed };
  }
  if (field.shape === "map") {
    const map = `v_${number}`;
    return {
      number,
      value: { kind: "message", message },
      declare: `${map} ${field.entry}[] := '{}';`,
      found: appended(map, true, (bytes) => `${qualified(options, `hawser_decode_${field.entryName}`)}(${bytes})`),
      // The last of several entries with the same key is used.
      atEnd: [
        `v_tag := ${tagOf(number, 2)};`,
        `IF (SELECT count(DISTINCT e.key) FROM unnest(${map}) AS e) < cardinality(${map}) THEN`,
        `  ${map} := ARRAY(`,
        `    SELECT ROW(d.key, d.value)::${field.entry} FROM (`,
        `      SELECT DISTINCT ON (e.key) e.key, e.value FROM unnest(${map}) WITH ORDINALITY AS e (key, value, n) ORDER BY e.key, e.n DESC`,
        "    ) AS d",
        "  );",
        "END IF;",
        `v.${column} := ${map};`,
      ],
    };
  }
  const others = message.fields.filter(
    (other) => other !== field && isInOneof(field) && other.desc.oneof === field.desc.oneof,
  );
  const clear = others.map((other) =>
    isMessageValue(other.value) ? `r_${other.number} := '{}';` : `v.${other.column} := NULL;`,
  );
  if (isMessageValue(value)) {
    // Protobuf merges the parts of a message that occurs several times, as if their bytes were one message. The parts
    // are joined once.
    const parts = `r_${number}`;
    const joined = `(SELECT string_agg(p.part, ''::bytea ORDER BY p.n) FROM unnest(${parts}) WITH ORDINALITY AS p (part, n))`;
    return {
      number,
      value,
      declare: `${parts} bytea[] := '{}';`,
      found: [`${parts} := array_append(${parts}, v_bytes);`, ...clear],
      atEnd: [
        `IF cardinality(${parts}) > 0 THEN`,
        `  v_tag := ${tagOf(number, 2)};`,
        `  v_bytes := CASE cardinality(${parts}) WHEN 1 THEN ${parts}[1] ELSE ${joined} END;`,
        `  v.${column} := ${readValue(options, value, "NULL", "v_bytes")};`,
        "END IF;",
      ],
    };
  }
  const required =
    field.presence === "required"
      ? [`IF v.${column} IS NULL THEN`, `  ${refuse(options, fullName(field), "'is missing'")}`, "END IF;"]
      : [];
  return {
    number,
    value,
    found: [`v.${column} := ${readValue(options, value, "v_n", "v_bytes")};`, ...clear],
    atEnd: required,
  };
}

function packedFixed(options: SqlOptions, list: string, value: ValueKind, size: 4 | 8): string[] {
  const part = `substr(v_bytes, v_part, ${size})`;
  return [
    `IF v_n % ${size} <> 0 THEN`,
    "  RAISE EXCEPTION USING ERRCODE = 'data_exception', MESSAGE = 'the list ends within an element';",
    "END IF;",
    `FOR v_part IN 1 .. v_n::integer BY ${size} LOOP`,
    `  ${list} := array_append(${list}, ${readValue(options, value, "NULL", part)});`,
    "END LOOP;",
  ];
}

/**
 * Appends an element to a list with a bare array_append, which Postgres runs in place: any other expression copies the
 * list each time.
 *
 * @param isMessage true if the element is a message: an empty one is a constant of the plan instead of a call, because
 * a payload can hold an empty message in every 2 bytes
 */
function appended(list: string, isMessage: boolean, read: (bytes: string) => string): string[] {
  const append = (bytes: string): string => `${list} := array_append(${list}, ${read(bytes)});`;
  if (!isMessage) return [append("v_bytes")];
  return ["IF v_n > 0 THEN", `  ${append("v_bytes")}`, "ELSE", `  ${append("''::bytea")}`, "END IF;"];
}

function isInOneof({ desc }: FieldModel): boolean {
  return desc.oneof !== undefined;
}

/** True if a value is encoded as a message, so that its bytes are collected first. */
function isMessageValue({ kind }: ValueKind): boolean {
  return kind !== "scalar" && kind !== "enum";
}

/** Function that reads an entry of a map. */
export function entryFunction(options: SqlOptions, field: Extract<FieldModel, { shape: "map" }>): MadeFunction {
  const [key, value] = entryFields(field);
  const parts = [key!, value!].map(
    (part): ReadField => ({
      number: part.number,
      value: part.value,
      found: [`v.${part.column} := ${readValue(options, part.value, "v_n", "v_bytes")};`],
    }),
  );
  const isMessage = field.value.kind !== "scalar" && field.value.kind !== "enum";
  // An absent value is an empty message.
  const empty = isMessage ? readValue(options, field.value, "NULL", "''::bytea") : zeroOf(field.value);
  return madeFunction({
    options,
    name: `hawser_decode_${field.entryName}`,
    parameters: ["payload bytea"],
    types: ["bytea"],
    returns: field.entry,
    properties: `${pureWithCatch} STRICT`,
    body: `AS $function$
DECLARE
${readVariables}  v ${field.entry};
BEGIN
  v.${quoted("key")} := ${zeroOf(key!.value)};
  v.${quoted("value")} := ${empty};
${readLoop(parts)}  RETURN v;
END
$function$`,
    comment: `An entry of ${fullName(field)} from its bytes.`,
  });
}

/** Functions that read the messages of google.protobuf that are single values in SQL. */
export function wellKnownFunctions(options: SqlOptions, kinds: readonly ValueKind[]): MadeFunction[] {
  const make = (name: string, type: string, init: string, parts: readonly ReadField[], result: string): MadeFunction =>
    madeFunction({
      options,
      name: `hawser_${name}`,
      parameters: ["payload bytea"],
      types: ["bytea"],
      returns: type,
      properties: "LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT SET search_path = pg_catalog, pg_temp",
      body: `AS $function$\nDECLARE\n${readVariables}${init}BEGIN\n${readLoop(parts)}  RETURN ${result};\nEND\n$function$`,
      comment: "A message of google.protobuf from its bytes.",
    });
  const long: ValueKind = { kind: "scalar", scalar: ScalarType.INT64 };
  const pair = ["timestamp", "duration"].map((name) =>
    make(
      `decode_${name}`,
      name === "timestamp" ? "timestamptz" : "interval",
      "  v_seconds bigint := 0;\n  v_nanos bigint := 0;\n",
      [
        { number: 1, value: long, found: ["v_seconds := v_n;"] },
        { number: 2, value: long, found: ["v_nanos := v_n;"] },
      ],
      `${helperName(options, name)}(v_seconds, v_nanos)`,
    ),
  );
  const scalars = [...new Set(kinds.flatMap((kind) => (kind.kind === "wrapper" ? [kind.scalar] : [])))];
  const wrappers = scalars.map((scalar) => {
    const value: ValueKind = { kind: "scalar", scalar };
    const type = typeOf(options, value);
    const parts = [{ number: 1, value, found: [`v := ${readValue(options, value, "v_n", "v_bytes")};`] }];
    return make(wrapperName(scalar), type.replace("(20)", ""), `  v ${type} := ${zeroOf(value)};\n`, parts, "v");
  });
  return [...pair, ...wrappers];
}

/** `from_json_order_placed(jsonb)`: the row of an object in protobuf JSON. Rules are not checked. */
export function jsonFunction(options: SqlOptions, message: MessageModel): MadeFunction {
  const type = qualified(options, message.name);
  const oneofs = message.desc.oneofs
    .filter(({ fields }) => fields.length > 1)
    .map((oneof) => {
      const columns = message.fields.filter(({ desc }) => desc.oneof === oneof).map(({ column }) => `v.${column}`);
      const refusal = refuse(options, `${message.desc.typeName}.${oneof.name}`, "'has more than one field'");
      return `  IF num_nonnulls(${columns.join(", ")}) > 1 THEN\n    ${refusal}\n  END IF;\n`;
    });
  return madeFunction({
    options,
    name: `from_json_${message.name}`,
    parameters: ["object jsonb"],
    types: ["jsonb"],
    returns: type,
    properties: `${pureWithCatch} STRICT`,
    body: `AS $function$
#variable_conflict use_column
DECLARE
  v ${type};
  v_value jsonb;
  v_field text := '';
BEGIN
  PERFORM ${helperName(options, "json_object")}(object);
${emptyRow(options, message)}${message.fields.map((field) => readJson(options, field)).join("")}${oneofs.join("")}  RETURN v;
EXCEPTION WHEN data_exception THEN
  IF SQLSTATE = ${sqlString(refused)} THEN
    RAISE;
  END IF;
  PERFORM ${helperName(options, "refuse")}(${sqlString(message.desc.typeName)} || v_field, 'cannot be read: ' || SQLERRM);
END
$function$`,
    comment: `A ${message.desc.typeName} from protobuf JSON. The rules are not checked.`,
  });
}

function readJson(options: SqlOptions, field: FieldModel): string {
  const { desc, column, value } = field;
  const names = [...new Set([desc.jsonName, desc.name])].map((name) => `object -> ${sqlString(name)}`);
  const found = names.length === 1 ? names[0]! : `coalesce(${names.join(", ")})`;
  let read: string;
  if (field.shape === "single") {
    read = jsonValue(options, value, "v_value");
  } else if (field.shape === "list") {
    const items = `unnest(${helperName(options, "json_items")}(v_value)) AS i (x)`;
    read = `ARRAY(SELECT ${jsonValue(options, value, "i.x")} FROM ${items})`;
  } else {
    const key = jsonKey(options, field.key);
    const type = typeOf(options, value);
    read = `ARRAY(\n      SELECT ROW(${key}, (${jsonValue(options, value, "i.value")})::${type})::${field.entry}\n        FROM jsonb_each(${helperName(options, "json_object")}(v_value)) AS i (key, value)\n    )`;
  }
  const required =
    field.shape === "single" && field.presence === "required"
      ? `  ELSE\n    ${refuse(options, fullName(field), "'is missing'")}\n`
      : "";
  return `  v_value := ${found};
  IF v_value <> 'null' THEN
    v_field := ${sqlString(`.${desc.name}`)};
    v.${column} := ${read};
${required}  END IF;
`;
}

/** Key of a map, which is always a string in JSON. */
function jsonKey(options: SqlOptions, key: ScalarType): string {
  if (key === ScalarType.STRING) return "i.key";
  const value: ValueKind = { kind: "scalar", scalar: key };
  const text = key === ScalarType.BOOL ? "i.key::boolean::text::jsonb" : "to_jsonb(i.key)";
  return `(${jsonValue(options, value, text)})::${typeOf(options, value)}`;
}
