/**
 * The header that says how a payload is encoded, and of which type it is:
 *
 *     content-type: application/x-protobuf; type=acme.v1.OrderPlaced
 *     content-type: application/json; type=acme.v1.OrderPlaced
 */
import type { DescMessage } from "@bufbuild/protobuf";

/** How a message is encoded: in the binary format of Protobuf, or in its JSON. */
export type Format = "binary" | "json";

/** The name of the header. */
export const contentTypeHeader = "content-type";

const mediaTypes: Readonly<Record<Format, string>> = { binary: "application/x-protobuf", json: "application/json" };
const formats = new Map<string, Format>([
  ["application/x-protobuf", "binary"],
  ["application/protobuf", "binary"],
  ["application/json", "json"],
]);

/** What a header says. */
export interface ContentType {
  readonly format: Format;
  /** The full name of the message, if the header has it. */
  readonly type: string | undefined;
}

/** The header's value for messages of a schema. */
export function contentTypeOf(schema: DescMessage, format: Format): string {
  return `${mediaTypes[format]}; type=${schema.typeName}`;
}

const parsed = new Map<string, ContentType | undefined>();
/** What others send fills no memory. */
const maxParsed = 1000;

/** What a header says; undefined if it is not about messages of Protobuf. */
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
