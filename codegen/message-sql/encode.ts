/** Functions `encode_…`: convert a row of the composite type to a Protobuf message. */
import { sqlString } from "../sql/literal.js";
import { type MadeFunction, madeFunction, pure } from "./helpers.js";
import { type EnumModel, entryFields, type FieldModel, fieldType, type MessageModel, qualified } from "./model.js";
import { bytesLiteral, varintBytes } from "./names.js";
import type { SqlOptions } from "./options.js";
import { bytesOfTag, helperName, isNotZero, rawValue, tagOf, wireTypeOf, wireValue, zeroOf } from "./values.js";

/**
 * `encode_order_placed(message order_placed)`: refuses values that the type of a field does not allow. Rules are not
 * checked.
 */
export function encodeFunction(options: SqlOptions, message: MessageModel): MadeFunction {
  const type = qualified(options, message.name);
  const oneofs = message.desc.oneofs
    .filter(({ fields }) => fields.length > 1)
    .map((oneof) => {
      const columns = message.fields
        .filter(({ desc }) => desc.oneof === oneof)
        .map(({ column }) => `message.${column}`);
      const names = oneof.fields.map(({ name }) => name).join(", ");
      const refusal = refuse(
        options,
        `${message.desc.typeName}.${oneof.name}`,
        sqlString(`at most one of ${names} may be set`),
      );
      return `  IF num_nonnulls(${columns.join(", ")}) > 1 THEN\n    ${refusal}\n  END IF;\n`;
    });
  return madeFunction({
    options,
    name: `encode_${message.name}`,
    parameters: [`message ${type}`],
    types: [type],
    returns: "bytea",
    properties: `${pure} STRICT`,
    body: `AS $function$
DECLARE
  v_all bytea := '';
  v_bytes bytea;
  v_n bigint;
BEGIN
${oneofs.join("")}${message.fields.map((field) => encodeField(options, field)).join("")}  RETURN v_all;
END
$function$`,
    comment: `The bytes of ${message.desc.typeName}.`,
  });
}

/** Full name of a field: `acme.v1.OrderPlaced.tenant`. */
export function fullName({ desc }: FieldModel): string {
  return `${desc.parent.typeName}.${desc.name}`;
}

/** Statement that refuses a message. */
export function refuse(options: SqlOptions, where: string, what: string): string {
  return `PERFORM ${helperName(options, "refuse")}(${sqlString(where)}, ${what});`;
}

function encodeField(options: SqlOptions, field: FieldModel): string {
  const x = `message.${field.column}`;
  const name = sqlString(fullName(field));
  if (field.shape === "single") {
    const isSet =
      field.presence === "implicit" && field.value.kind === "scalar"
        ? isNotZero(field.value, x)
        : `${x} IS DISTINCT FROM NULL`;
    const missing =
      field.presence === "required" ? `  ELSE\n    ${refuse(options, fullName(field), "'must be set'")}\n` : "";
    return `  IF ${isSet} THEN\n${encodeSingle(options, field, x, name)}${missing}  END IF;\n`;
  }
  const isMap = field.shape === "map";
  // No column has this name, so it always refers to the row and not to a column.
  const row = '"#e"';
  const elements = isMap ? "AS e" : field.value.kind === "message" ? `AS ${row}` : "AS e (value)";
  const tag = bytesLiteral(varintBytes(tagOf(field.number, 2)));
  const refusals = [
    [`array_ndims(${x}) > 1`, "must have one dimension"],
    [`array_position(${x}, NULL) IS NOT NULL`, `must have no ${isMap ? "entry" : "element"} that is NULL`],
    ...(isMap
      ? [
          [
            `EXISTS (SELECT FROM unnest(${x}) AS e GROUP BY coalesce(e.key, ${zeroOf({ kind: "scalar", scalar: field.key })}) HAVING count(*) > 1)`,
            "must have each key once",
          ],
        ]
      : []),
  ].map(
    ([condition, what]) =>
      `    IF ${condition} THEN\n      ${refuse(options, fullName(field), sqlString(what!))}\n    END IF;\n`,
  );
  let encoded: string;
  if (isMap) {
    const parts = entryFields(field).map((part) => {
      const value = `e.${part.column}`;
      // NULL is encoded as no bytes, and is read back as zero.
      return `coalesce(${bytesOfTag(part.number, part.value)} || ${wireValue(options, part.value, value, name)}, ''::bytea)`;
    });
    encoded = `    v_all := v_all || (\n      SELECT string_agg(${tag} || ${helperName(options, "sized")}(${parts.join(" || ")}), ''::bytea)\n        FROM unnest(${x}) ${elements}\n    );\n`;
  } else {
    const element = field.value.kind === "message" ? `${row}::${fieldType(options, field).slice(0, -2)}` : "e.value";
    const wire = wireValue(options, field.value, element, name);
    const isPacked = "packed" in field.desc && field.desc.packed;
    encoded = isPacked
      ? `    v_all := v_all || ${tag} || ${helperName(options, "sized")}(\n      (SELECT string_agg(${wire}, ''::bytea) FROM unnest(${x}) ${elements})\n    );\n`
      : `    v_all := v_all || (\n      SELECT string_agg(${bytesOfTag(field.number, field.value)} || ${wire}, ''::bytea) FROM unnest(${x}) ${elements}\n    );\n`;
  }
  return `  IF cardinality(${x}) > 0 THEN\n${refusals.join("")}${encoded}  END IF;\n`;
}

/** Encodes a tag and a small number or length with one concatenation, because most values are small. */
function encodeSingle(options: SqlOptions, field: FieldModel, x: string, name: string): string {
  const { number, value } = field;
  const raw = rawValue(options, value, x, name);
  const wireType = wireTypeOf(value);
  const tag = varintBytes(tagOf(number, wireType));
  const small = `set_byte(${bytesLiteral([...tag, 0])}, ${tag.length}, v_n::integer)`;
  const large = `${bytesLiteral(tag)} || ${helperName(options, "varint")}(v_n)`;
  const numberOrLength = `CASE WHEN v_n BETWEEN 0 AND 127 THEN ${small} ELSE ${large} END`;
  if (wireType === 0) {
    const isLeftOut = value.kind === "enum" && field.shape === "single" && field.presence === "implicit";
    const write = `v_all := v_all || ${numberOrLength};`;
    return isLeftOut
      ? `    v_n := ${raw};\n    IF v_n <> 0 THEN\n      ${write}\n    END IF;\n`
      : `    v_n := ${raw};\n    ${write}\n`;
  }
  if (wireType === 2) {
    return `    v_bytes := ${raw};\n    v_n := octet_length(v_bytes);\n    v_all := v_all || ${numberOrLength} || v_bytes;\n`;
  }
  return `    v_all := v_all || ${bytesLiteral(tag)} || ${raw};\n`;
}

/** Functions of an enum: name from number, number from name, and name from a JSON value. */
export function enumFunctions(options: SqlOptions, { desc, name }: EnumModel): MadeFunction[] {
  const numbers = desc.values.map((value) => `    WHEN ${sqlString(value.name)} THEN ${value.number}`);
  const firstOf = new Map(desc.values.toReversed().map((value) => [value.number, value.name]));
  const names = [...firstOf].toReversed().map(([number, first]) => `    WHEN ${number} THEN ${sqlString(first)}`);
  const numberOf = qualified(options, `${name}_number`);
  return [
    madeFunction({
      options,
      name: `${name}_name`,
      parameters: ["integer"],
      types: ["integer"],
      returns: "text",
      properties: `${pure} STRICT`,
      body: `AS $function$\nBEGIN\n  RETURN CASE $1\n${names.join("\n")}\n    ELSE $1::text\n  END;\nEND\n$function$`,
      comment: `The name of a number of ${desc.typeName}, or the number as a text if it has none.`,
    }),
    madeFunction({
      options,
      name: `${name}_number`,
      parameters: ["text", "text"],
      types: ["text", "text"],
      returns: "integer",
      properties: `${pure} STRICT`,
      body: `AS $function$
DECLARE
  v_number CONSTANT integer := CASE $1
${numbers.join("\n")}
  END;
BEGIN
  IF v_number IS NULL THEN
    IF $1 !~ '^-?[0-9]{1,10}$' OR $1::bigint NOT BETWEEN -2147483648 AND 2147483647 THEN
      PERFORM ${helperName(options, "refuse")}($2, ${sqlString(`must be a name of ${desc.typeName}, and is `)} || to_json(left($1, 60)));
    END IF;
    RETURN $1::integer;
  END IF;
  RETURN v_number;
END
$function$`,
      comment: `The number of a name of ${desc.typeName}, or of a number as a text; and the field, for the error.`,
    }),
    madeFunction({
      options,
      name: `${name}_json`,
      parameters: ["jsonb"],
      types: ["jsonb"],
      returns: "text",
      properties: `${pure} STRICT`,
      body: `AS $function$
BEGIN
  RETURN ${qualified(options, `${name}_name`)}(
    CASE jsonb_typeof($1)
      WHEN 'string' THEN ${numberOf}($1 #>> '{}', ${sqlString(desc.typeName)})
      ELSE ${helperName(options, "json_integer")}($1, -2147483648, 2147483647)::integer
    END
  );
END
$function$`,
      comment: `The name of ${desc.typeName} in JSON.`,
    }),
  ];
}
