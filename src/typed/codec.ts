/**
 * Encoding and decoding of typed messages: both check the rules of the schema.
 */
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
import { HawserError } from "../errors/index.js";
import { decodeBinary, type MessageReader, readerOf, Undecodable } from "./binary-reader.js";
import { encodeBinary, type Fields, type WriteMessage, writerOf, wrongType } from "./binary-writer.js";
import { type BrokenRule, type CheckMessage, checkOf, shown } from "./check.js";
import { contentTypeHeader, type Format, parseContentType } from "./content-type.js";
import { wrongValue } from "./value-types.js";

/**
 * The payload of a message, which is checked.
 *
 * @throws HawserError `invalid_argument` naming the field, its value and the rule; `invalid_schema`
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
    if (wrong !== undefined) throw invalidArgument(schema, wrong);
    if (error === wrongType || !(error instanceof Error)) throw error;
    throw new HawserError("invalid_argument", `${schema.typeName}: ${error.message}`, { cause: error });
  }
  const broken = check?.(fields);
  if (broken !== undefined) throw invalidArgument(schema, broken);
  return payload;
}

/**
 * The message in a payload, checked.
 *
 * @throws HawserError `invalid_message` naming the field, its value and the rule, or why it cannot be decoded;
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

/** Fields that the schema does not have are those of a newer version. */
function decodeJson<Desc extends DescMessage>(schema: Desc, payload: Uint8Array): MessageShape<Desc> {
  try {
    return fromJson(schema, JSON.parse(utf8.decode(payload)), { ignoreUnknownFields: true });
  } catch (error) {
    throw undecodable(schema, "", "JSON", error);
  }
}

function undecodable(schema: DescMessage, path: string, format: string, cause: unknown): HawserError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new HawserError("invalid_message", `${schema.typeName}${path}: cannot be decoded from ${format}: ${why}`, {
    cause,
  });
}

function invalidArgument(schema: DescMessage, broken: BrokenRule): HawserError {
  return new HawserError("invalid_argument", violationText(schema, broken));
}

/** Sentence that names the field, its value and the rule. */
export function violationText({ typeName }: DescMessage, { path, value, must, rule }: BrokenRule): string {
  return `${path === "" ? typeName : `${typeName}.${path}`} ${value}: ${must} (${rule})`;
}

/** The payload of a message, without a look at its rules: what `toBinary(schema, create(schema, message))` makes. */
export function encodeUnchecked<Desc extends DescMessage>(schema: Desc, message: MessageInitShape<Desc>): Uint8Array {
  const { write } = codecOf(schema);
  if (write !== undefined) {
    try {
      return encodeBinary(write, message as Fields);
    } catch {
      // protobuf-es says what is wrong.
    }
  }
  return toBinary(schema, create(schema, message));
}

/** The message in a payload, without a look at its rules: as `fromBinary(schema, payload)`. @throws Error saying why there is none */
export function decodeUnchecked<Desc extends DescMessage>(schema: Desc, payload: Uint8Array): MessageShape<Desc> {
  const { read } = codecOf(schema);
  return read === undefined ? fromBinary(schema, payload) : (decodeBinary(read, payload) as MessageShape<Desc>);
}

/** What is made of a schema when it is used for the first time. Undefined where protobuf-es writes and reads: see isPlain. */
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

/** The codec of a schema that is used for typed messages, and its rules. */
interface Compiled extends Codec {
  readonly check: CheckMessage | undefined;
}

const compiled = new WeakMap<DescMessage, Compiled>();
/** Mostly many messages of one schema follow each other. */
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

/** What is rare our own reader and writer do not know. */
function isPlain(schema: DescMessage, seen: Set<DescMessage>): boolean {
  if (seen.has(schema)) return true;
  seen.add(schema);
  return schema.fields.every((field) => {
    if (field.presence === FeatureSet_FieldPresence.LEGACY_REQUIRED) return false;
    if ("delimitedEncoding" in field && field.delimitedEncoding) return false;
    if (field.enum !== undefined && !field.enum.open) return false;
    if (field.message === undefined) return true;
    // protobuf-es has an object of JSON in its place.
    return field.message.typeName !== "google.protobuf.Struct" && isPlain(field.message, seen);
  });
}

/** The type of a message, and how it is encoded. */
export interface TypeOfMessage<Type> {
  readonly type: Type;
  readonly format: Format | undefined;
}

/**
 * Which of some types a message has, as its content type says. Without a content type it is of the only one, in the binary
 * format.
 *
 * @param types by the names of their messages
 * @param from where it came from, for people
 * @throws HawserError `invalid_message` naming the types that there are
 */
export function typeOf<Type extends { readonly schema: DescMessage }>(
  types: ReadonlyMap<string, Type>,
  contentType: string | undefined,
  from: string,
): TypeOfMessage<Type> {
  const said = contentType === undefined ? undefined : parseContentType(contentType);
  if (said === undefined && contentType !== undefined) {
    const media = "application/x-protobuf or application/json";
    throw new HawserError("invalid_message", `${contentTypeHeader} ${shown(contentType)}: must be ${media}`);
  }
  const type = said?.type === undefined ? onlyOf(types, contentType, from) : types.get(said.type);
  if (type === undefined) {
    const known = [...types.keys()].join(", ");
    throw new HawserError(
      "invalid_message",
      `a message of ${said?.type}: the types that ${from} has here are ${known}`,
    );
  }
  return { type, format: said?.format };
}

function onlyOf<Type>(types: ReadonlyMap<string, Type>, contentType: string | undefined, from: string): Type {
  const [only, ...more] = types.values();
  if (only !== undefined && more.length === 0) return only;
  const lack = contentType === undefined ? "without a content-type" : `with the content-type ${shown(contentType)}`;
  throw new HawserError(
    "invalid_message",
    `a message ${lack}, which must say the type: the types that ${from} has here are ${[...types.keys()].join(", ")}`,
  );
}
