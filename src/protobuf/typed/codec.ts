/** Encoding and decoding of typed messages, with checks of the schema's rules. */
import {
  create,
  type DescMessage,
  fromBinary,
  fromJson,
  type MessageInitShape,
  type MessageShape,
  toBinary,
  toJsonString,
} from "@bufbuild/protobuf";
import { FeatureSet_FieldPresence } from "@bufbuild/protobuf/wkt";
import { errorMessageOf, HawserError, invalidArgument } from "../../foundation/errors/index.js";
import type { Format } from "../../foundation/payloads/index.js";
import { decodeBinary, type MessageReader, readerOf, Undecodable } from "./binary-reader.js";
import { encodeBinary, type Fields, type WriteMessage, writerOf, wrongType } from "./binary-writer.js";
import { type BrokenRule, type CheckMessage, checkOf } from "./check.js";
import { wrongValue } from "./value-types.js";

/**
 * Checks a message and encodes it to a payload.
 *
 * @throws HawserError `invalid_argument` with the field, its value and the rule; `invalid_schema`
 */
export function encode<Desc extends DescMessage>(
  schema: Desc,
  message: MessageInitShape<Desc>,
  format: Format = "binary",
): Uint8Array {
  const { write, check } = compiledOf(schema);
  let payload: Uint8Array;
  let fields = message as Fields;
  try {
    if (format === "binary" && write !== undefined) payload = encodeBinary(write, fields);
    else {
      const whole = create(schema, message);
      fields = whole as unknown as Fields;
      payload = format === "json" ? Buffer.from(toJsonString(schema, whole)) : toBinary(schema, whole);
    }
  } catch (error) {
    const wrong = wrongValue(schema, message);
    if (wrong !== undefined) throw invalidArgument(violationText(schema, wrong));
    if (error === wrongType || !(error instanceof Error)) throw error;
    throw invalidArgument(`${schema.typeName}: ${error.message}`, error);
  }
  const broken = check?.(fields);
  if (broken !== undefined) throw invalidArgument(violationText(schema, broken));
  return payload;
}

/**
 * Decodes a message from a payload and checks it.
 *
 * @throws HawserError `invalid_message` with the field, its value and the rule, or the reason why it cannot be decoded;
 * `invalid_schema`
 */
export function decode<Desc extends DescMessage>(
  schema: Desc,
  payload: Uint8Array,
  format: Format = "binary",
): MessageShape<Desc> {
  const message = format === "json" ? decodeJson(schema, payload) : decodeAsBinary(schema, payload);
  const broken = compiledOf(schema).check?.(message as unknown as Fields);
  if (broken !== undefined) throw new HawserError("invalid_message", violationText(schema, broken));
  return message;
}

function decodeAsBinary<Desc extends DescMessage>(schema: Desc, payload: Uint8Array): MessageShape<Desc> {
  try {
    return decodeUnchecked(schema, payload);
  } catch (error) {
    const path = error instanceof Undecodable && error.path !== "" ? `.${error.path}` : "";
    throw undecodable(schema, path, "Protobuf", error);
  }
}

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** Decodes JSON. Unknown fields are ignored, because they come from a newer version. */
function decodeJson<Desc extends DescMessage>(schema: Desc, payload: Uint8Array): MessageShape<Desc> {
  try {
    return fromJson(schema, JSON.parse(utf8.decode(payload)), { ignoreUnknownFields: true });
  } catch (error) {
    throw undecodable(schema, "", "JSON", error);
  }
}

function undecodable(schema: DescMessage, path: string, format: string, cause: unknown): HawserError {
  const why = errorMessageOf(cause);
  return new HawserError("invalid_message", `${schema.typeName}${path}: cannot be decoded from ${format}: ${why}`, {
    cause,
  });
}

/** Sentence that names the field, its value and the rule. */
export function violationText({ typeName }: DescMessage, { path, value, must, rule }: BrokenRule): string {
  return `${path === "" ? typeName : `${typeName}.${path}`} ${value}: ${must} (${rule})`;
}

/** Encodes a message without checking its rules: the same bytes as `toBinary(schema, create(schema, message))`. */
export function encodeUnchecked<Desc extends DescMessage>(schema: Desc, message: MessageInitShape<Desc>): Uint8Array {
  const { write } = codecOf(schema);
  if (write !== undefined) {
    try {
      return encodeBinary(write, message as Fields);
    } catch {
      // protobuf-es throws an error that names the problem.
    }
  }
  return toBinary(schema, create(schema, message));
}

/** Decodes a message without checking its rules, as `fromBinary(schema, payload)`. @throws Error with the reason */
export function decodeUnchecked<Desc extends DescMessage>(schema: Desc, payload: Uint8Array): MessageShape<Desc> {
  const { read } = codecOf(schema);
  return read === undefined ? fromBinary(schema, payload) : (decodeBinary(read, payload) as MessageShape<Desc>);
}

/** Codec of a schema, created at its first use. Undefined parts are left to protobuf-es: see isPlain. */
interface Codec {
  readonly write: WriteMessage | undefined;
  readonly read: MessageReader | undefined;
}

const codecs = new WeakMap<DescMessage, Codec>();

function codecOf(schema: DescMessage): Codec {
  let found = codecs.get(schema);
  if (found === undefined) {
    found = isPlain(schema, new Set())
      ? { write: writerOf(schema), read: readerOf(schema) }
      : { write: undefined, read: undefined };
    codecs.set(schema, found);
  }
  return found;
}

/** Codec of a schema with the check of its rules. */
interface Compiled extends Codec {
  readonly check: CheckMessage | undefined;
}

const compiled = new WeakMap<DescMessage, Compiled>();
/** Last used schema: consecutive messages mostly have the same one. */
let last: { readonly schema: DescMessage; readonly compiled: Compiled } | undefined;

/** @throws HawserError `invalid_schema` */
function compiledOf(schema: DescMessage): Compiled {
  if (last?.schema === schema) return last.compiled;
  let found = compiled.get(schema);
  if (found === undefined) {
    found = { check: checkOf(schema), ...codecOf(schema) };
    compiled.set(schema, found);
  }
  last = { schema, compiled: found };
  return found;
}

/** True if the reader and writer of this folder support the schema. Rare features are left to protobuf-es. */
function isPlain(schema: DescMessage, seen: Set<DescMessage>): boolean {
  if (seen.has(schema)) return true;
  seen.add(schema);
  return schema.fields.every((field) => {
    if (field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED) return false;
    if ("delimitedEncoding" in field && field.delimitedEncoding) return false;
    if (field.enum !== undefined && !field.enum.open) return false;
    if (field.message === undefined) return true;
    // protobuf-es represents a Struct as a JSON object.
    return field.message.typeName !== "google.protobuf.Struct" && isPlain(field.message, seen);
  });
}
