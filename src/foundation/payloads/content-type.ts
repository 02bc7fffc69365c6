/**
 * Header with the encoding and the type of a payload:
 *
 * content-type: application/x-protobuf; type=acme.v1.OrderPlaced
 * content-type: application/json; type=acme.v1.OrderPlaced
 */
import type { DescMessage } from "@bufbuild/protobuf";
import { HawserError, invalidArgument, quoted } from "../errors/index.js";

/** Encoding of a message: the binary format of Protobuf, or its JSON format. */
export type Format = "binary" | "json";

/** Validates the option `format`; the default is `binary`. @throws HawserError `invalid_argument` */
export function checkFormat(option: unknown): Format {
  const format = option ?? "binary";
  if (format === "binary" || format === "json") return format;
  throw invalidArgument(`format ${String(format)}: must be "binary" or "json"`);
}

/** Name of the header. */
export const contentTypeHeader = "content-type";

const mediaTypes: Readonly<Record<Format, string>> = { binary: "application/x-protobuf", json: "application/json" };
const formats = new Map<string, Format>([
  ["application/x-protobuf", "binary"],
  ["application/protobuf", "binary"],
  ["application/json", "json"],
]);

/** Parsed header. */
interface ContentType {
  readonly format: Format;
  /** Full name of the message, if the header has it. */
  readonly type: string | undefined;
}

/** Value of the header for messages of a schema. */
export function contentTypeOf(schema: DescMessage, format: Format): string {
  return `${mediaTypes[format]}; type=${schema.typeName}`;
}

const parsed = new Map<string, ContentType | undefined>();
/** Maximum number of cached headers, so that senders cannot fill the memory. */
const maxParsed = 1000;

/** Parses a header; undefined if it is not about Protobuf messages. */
export function parseContentType(text: string): ContentType | undefined {
  if (parsed.has(text)) return parsed.get(text);
  const found = parse(text);
  if (parsed.size >= maxParsed) parsed.clear();
  parsed.set(text, found);
  return found;
}

function parse(text: string): ContentType | undefined {
  const [mediaType, ...parameters] = text.split(";").map((part) => part.trim());
  const format = formats.get(mediaType!.toLowerCase());
  if (format === undefined) return undefined;
  const type = parameters
    .map((each) => /^type\s*=\s*"?([\w.]+)"?$/iu.exec(each)?.[1])
    .find((each) => each !== undefined);
  return { format, type };
}

/** Type of a message, and its encoding. */
export interface TypeOfMessage<Type> {
  readonly type: Type;
  readonly format: Format | undefined;
}

/**
 * Selects the type of a message by its content type. Without a content type, a single type is assumed, in the binary
 * format.
 *
 * @param types types by the full name of their messages
 * @param from origin of the message, for errors
 * @throws HawserError `invalid_message` with the known types
 */
export function typeOf<Type extends { readonly schema: DescMessage }>(
  types: ReadonlyMap<string, Type>,
  contentType: string | undefined,
  from: string,
): TypeOfMessage<Type> {
  const header = contentType === undefined ? undefined : parseContentType(contentType);
  if (header === undefined && contentType !== undefined) {
    const media = "application/x-protobuf or application/json";
    throw new HawserError("invalid_message", `${contentTypeHeader} ${quoted(contentType)}: must be ${media}`);
  }
  const type = header?.type === undefined ? onlyOf(types, contentType, from) : types.get(header.type);
  if (type === undefined) {
    const known = [...types.keys()].join(", ");
    throw new HawserError(
      "invalid_message",
      `a message of ${header?.type}: the types that ${from} has here are ${known}`,
    );
  }
  return { type, format: header?.format };
}

function onlyOf<Type>(types: ReadonlyMap<string, Type>, contentType: string | undefined, from: string): Type {
  const [only, ...more] = types.values();
  if (only !== undefined && more.length === 0) return only;
  const lack = contentType === undefined ? "without a content-type" : `with the content-type ${quoted(contentType)}`;
  throw new HawserError(
    "invalid_message",
    `a message ${lack}, which must say the type: the types that ${from} has here are ${[...types.keys()].join(", ")}`,
  );
}
