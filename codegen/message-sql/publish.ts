/** Functions `publish_…` and `read_…`, which users call. */
import { namedRules } from "../../generated/ts/rules/named.js";
import type { TextRules } from "../../generated/ts/rules/violation.js";
import { outboxSignatures } from "../../generated/ts/sql/outbox-schema.js";
import { queueSignatures } from "../../generated/ts/sql/queue-schema.js";
import { mustFitId, mustNotBeReserved } from "../../src/protobuf/typed/index.js";
import { sqlString } from "../sql/literal.js";
import { hasChecks } from "./check.js";
import { fullName, refuse } from "./encode.js";
import { type MadeFunction, madeFunction } from "./helpers.js";
import { type FieldModel, fieldType, type MessageModel, qualified } from "./model.js";
import { quoted } from "./names.js";
import type { SqlOptions } from "./options.js";
import { helperName, zeroOf } from "./values.js";

/** Message with a topic. */
export type TopicMessage = MessageModel & { readonly topic: NonNullable<MessageModel["topic"]> };

/** Generated function that publishes. */
export interface PublishFunction extends MadeFunction {
  /**
   * Names and types of its parameters. A function of the same name with other parameters comes from an earlier
   * generation.
   */
  readonly parameters: readonly { readonly name: string; readonly type: string }[];
}

/** Functions that publish functions call, with the types of their parameters. */
export const enqueueFunctions = {
  nats: outboxSignatures.enqueueSubject,
  peers: queueSignatures.enqueue,
};

/**
 * `publish_order_placed(tenant text, …, _key text, …)`: checks the rules and enqueues the message in the current
 * transaction. It runs with the rights of its owner: a role that may call it can send this message, and nothing else.
 */
export function publishFunction(options: SqlOptions, message: TopicMessage): PublishFunction {
  const { topic, desc } = message;
  const type = qualified(options, message.name);
  const hasBoth = topic.topic !== undefined && topic.subject !== undefined;
  const parameters = [
    ...message.fields.map((field) => ({
      name: field.desc.name,
      // Parameters of a function have no length modifiers.
      type: fieldType(options, field).replace("(20)", ""),
    })),
    { name: "_key", type: "text" },
    // Core NATS has no message ids.
    ...(topic.topic !== undefined || topic.stream ? [{ name: "_message_id", type: "text" }] : []),
    { name: "_deliver_at", type: "timestamptz" },
    { name: "_headers", type: "jsonb" },
    ...(hasBoth ? [{ name: "_to", type: "text" }] : []),
  ];
  const placeOf = (name: string): string => `$${parameters.findIndex((parameter) => parameter.name === name) + 1}`;
  const modelOf = (name: string | undefined): FieldModel | undefined =>
    message.fields.find((field) => field.desc.name === name);
  const keyField = modelOf(topic.key?.name);
  const idField = modelOf(topic.messageId?.field.name);
  const orField = (place: string, field: FieldModel | undefined, prefix = ""): string => {
    if (field === undefined) return place;
    return `coalesce(${place}, ${prefix === "" ? "" : `${sqlString(prefix)} || `}${textOf(field)})`;
  };
  const key = orField(placeOf("_key"), keyField);
  const id = orField(placeOf("_message_id"), idField, topic.messageId?.prefix);
  const deliverAt = placeOf("_deliver_at");
  const ownChecks = [
    keyField === undefined ? "" : checkOf(options, keyField, placeOf("_key"), "is the key", namedRules.enqueuedKey),
    topic.messageId === undefined
      ? ""
      : checkOf(options, idField!, placeOf("_message_id"), mustFitId, topic.messageId.rules),
  ].join("");
  const toNats =
    topic.subject === undefined
      ? ""
      : `RETURN hawser.enqueue(${subjectOf(topic, modelOf)}, v_payload, ${topic.stream}, v_headers, ${key}, ${topic.stream ? id : "NULL"}, NULL, ${deliverAt});`;
  const toPeers =
    topic.topic === undefined
      ? ""
      : `RETURN hawser.enqueue(${sqlString(topic.topic)}, v_payload, v_headers, ${key}, ${id}, ${deliverAt});`;
  const words = (topic.subject?.words ?? []).filter((word) => typeof word !== "string");
  const first = topic.subject?.words[0];
  const wordChecks = words.map((word) => {
    const field = modelOf((word as { name: string }).name)!;
    const text = textOf(field);
    const ofNats = `    IF starts_with(${text}, '$') THEN
      ${refuse(options, fullName(field), `${sqlString(`${mustNotBeReserved}; it is `)} || to_json(left(${text}, 60))`)}
    END IF;\n`;
    const problem =
      "goes into the subject and must be one token: not empty, without '.', '*', '>' and white space; it is ";
    return `${word === first ? ofNats : ""}    IF strpos(${text}, '.') > 0 OR ${text} !~ ${sqlString(namedRules.natsSubject.pattern.source)} THEN
      ${refuse(options, fullName(field), `${sqlString(problem)} || to_json(left(${text}, 60))`)}
    END IF;\n`;
  });
  const send = hasBoth
    ? `  CASE ${placeOf("_to")}
    WHEN 'nats' THEN
${wordChecks.join("").replaceAll(/^/gm, "  ").trimEnd()}
      ${toNats}
    WHEN 'peers' THEN
      ${toPeers}
    ELSE
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = ${sqlString(`${desc.typeName} goes to NATS and to peers: _to must be 'nats' or 'peers'`)};
  END CASE;\n`
    : `${wordChecks.join("")}  ${toNats}${toPeers}\n`;
  const name = `publish_${message.name}`;
  return {
    parameters,
    ...madeFunction({
      options,
      name,
      parameters: parameters.map((each) => `${quoted(each.name)} ${each.type} DEFAULT NULL`),
      types: parameters.map((each) => each.type),
      returns: "bigint",
      properties: "LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp",
      body: `AS $function$
DECLARE
  v ${type};
  v_payload bytea;
  v_headers jsonb := ${sqlString(JSON.stringify({ "content-type": contentType(message) }))};
BEGIN
${message.fields.map((field, index) => `  v.${field.column} := $${index + 1};\n`).join("")}${message.fields.length === 0 ? `  v := ROW()::${type};\n` : ""}${checkStatement(options, message)}${ownChecks}  v_payload := ${qualified(options, `encode_${message.name}`)}(v);
  IF ${placeOf("_headers")} IS NOT NULL THEN
    v_headers := ${helperName(options, "headers")}(${placeOf("_headers")}) || v_headers;
  END IF;
${send}END
$function$`,
      comment: `Publishes ${desc.typeName}, in the present transaction. Returns the number of the message.`,
    }),
  };
}

/** Refuses a field whose value is used as the key or id and is invalid for it, unless the caller passes another one. */
function checkOf(
  options: SqlOptions,
  field: FieldModel,
  place: string,
  what: string,
  { minBytes, maxBytes, pattern, means }: TextRules,
): string {
  const text = textOf(field);
  const holds = [
    `octet_length(${text}) BETWEEN ${minBytes} AND ${maxBytes}`,
    ...(pattern === undefined ? [] : [`${text} ~ ${sqlString(pattern.source)}`]),
  ].join(" AND ");
  const problem = `${what}: it must have ${minBytes} to ${maxBytes} bytes${means === undefined ? "" : `, and ${means}`}; it is `;
  return `  IF ${place} IS NULL AND NOT (${holds}) THEN
    ${refuse(options, fullName(field), `${sqlString(problem)} || to_json(left(${text}, 60))`)}
  END IF;\n`;
}

/** Value of a field as a text; for an absent field the zero value, as in TypeScript. */
function textOf(field: FieldModel): string {
  return `coalesce(v.${field.column}, ${zeroOf(field.value)})::text`;
}

function contentType({ desc }: MessageModel): string {
  return `application/x-protobuf; type=${desc.typeName}`;
}

function checkStatement(options: SqlOptions, message: MessageModel): string {
  if (!hasChecks(options, message)) return "";
  return `  PERFORM ${qualified(options, `check_${message.name}`)}(v, ${sqlString(message.desc.typeName)});\n`;
}

function subjectOf({ subject }: TopicMessage["topic"], modelOf: (name: string) => FieldModel | undefined): string {
  const parts: string[] = [];
  let text = "";
  for (const [index, word] of subject!.words.entries()) {
    if (index > 0) text += ".";
    if (typeof word === "string") {
      text += word;
    } else {
      if (text !== "") parts.push(sqlString(text));
      text = "";
      parts.push(textOf(modelOf(word.name)!));
    }
  }
  if (text !== "") parts.push(sqlString(text));
  return parts.join(" || ");
}

/**
 * `read_order_placed(payload bytea, headers jsonb)`: the row of a received message, from Protobuf or JSON, with its
 * rules checked.
 */
export function readFunction(options: SqlOptions, message: MessageModel): MadeFunction {
  const type = qualified(options, message.name);
  const { typeName } = message.desc;
  return madeFunction({
    options,
    name: `read_${message.name}`,
    parameters: ["payload bytea", "headers jsonb DEFAULT NULL"],
    types: ["bytea", "jsonb"],
    returns: type,
    properties: "LANGUAGE plpgsql IMMUTABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp",
    body: `AS $function$
DECLARE
  v ${type};
BEGIN
  IF payload IS NULL THEN
    RETURN NULL;
  END IF;
  IF headers IS NULL OR ${helperName(options, "is_binary")}(headers, ${sqlString(typeName)}) THEN
    v := ${qualified(options, `decode_${message.name}`)}(payload);
  ELSE
    v := ${qualified(options, `from_json_${message.name}`)}(${helperName(options, "json")}(payload, ${sqlString(typeName)}));
  END IF;
${checkStatement(options, message)}  RETURN v;
END
$function$`,
    comment: `A ${typeName} that came: its payload, and its headers as an SQL function gets them.`,
  });
}

/** Helpers of the functions of this file. */
export function publishHelpers(options: SqlOptions): MadeFunction[] {
  const refuseName = helperName(options, "refuse");
  const helper = (
    name: string,
    types: readonly string[],
    returns: string,
    body: string,
    catches: boolean,
    comment: string,
  ) =>
    madeFunction({
      options,
      name: `hawser_${name}`,
      parameters: types,
      types,
      returns,
      properties: `LANGUAGE plpgsql IMMUTABLE PARALLEL ${catches ? "UNSAFE" : "SAFE"} STRICT SET search_path = pg_catalog, pg_temp`,
      body: `AS $function$\n${body}\n$function$`,
      comment,
    });
  return [
    helper(
      "headers",
      ["jsonb"],
      "jsonb",
      `BEGIN
  IF jsonb_typeof($1) = 'object' AND EXISTS (SELECT FROM jsonb_object_keys($1) AS k (name) WHERE lower(k.name COLLATE "C") = 'content-type') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = '_headers: content-type is set by the function; leave it out';
  END IF;
  -- Such a header is an instruction to the server, such as to purge a stream; callers may only send a message.
  IF jsonb_typeof($1) = 'object' AND EXISTS (SELECT FROM jsonb_object_keys($1) AS k (name) WHERE lower(k.name COLLATE "C") LIKE 'nats-%') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = '_headers: names that begin with Nats- are for the NATS server; leave them out, and give the id as _message_id';
  END IF;
  -- The function that enqueues refuses a value that is not an object.
  RETURN CASE jsonb_typeof($1) WHEN 'object' THEN $1 ELSE jsonb_build_array($1) END;
END`,
      false,
      "Headers that a caller has given.",
    ),
    helper(
      "is_binary",
      ["jsonb", "text"],
      "boolean",
      `DECLARE
  v_header jsonb := $1 -> 'content-type';
  v_text text;
  v_type text;
BEGIN
  IF v_header IS NULL THEN
    SELECT h.value INTO v_header FROM jsonb_each($1) AS h (name, value) WHERE lower(h.name COLLATE "C") = 'content-type' LIMIT 1;
    IF NOT FOUND THEN
      RETURN true;
    END IF;
  END IF;
  v_text := CASE jsonb_typeof(v_header) WHEN 'array' THEN v_header ->> 0 ELSE v_header #>> '{}' END;
  v_type := substring(v_text FROM ';[[:space:]]*type[[:space:]]*=[[:space:]]*"?([A-Za-z0-9_.]+)');
  IF v_type <> $2 THEN
    PERFORM ${refuseName}($2, 'cannot be read: the message is of the type ' || v_type);
  END IF;
  CASE lower(btrim(split_part(v_text, ';', 1)) COLLATE "C")
    WHEN 'application/x-protobuf', 'application/protobuf' THEN
      RETURN true;
    WHEN 'application/json' THEN
      RETURN false;
    ELSE
      RETURN ${refuseName}($2, 'cannot be read: its content-type is ' || to_json(left(v_text, 100)));
  END CASE;
END`,
      false,
      "Whether a message is Protobuf, and not JSON, by its headers; refuses one of another type.",
    ),
    helper(
      "json",
      ["bytea", "text"],
      "jsonb",
      `BEGIN
  RETURN convert_from($1, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception THEN
  PERFORM ${refuseName}($2, 'cannot be read: ' || SQLERRM);
END`,
      true,
      "A payload as JSON.",
    ),
  ];
}
