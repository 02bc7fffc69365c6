/** Encoding of messages as Protobuf binary or JSON, within a size limit. */
import {
  type BinaryReadOptions,
  type BinaryWriteOptions,
  create,
  type DescMessage,
  fromBinary,
  fromJsonString,
  type JsonReadOptions,
  type JsonWriteOptions,
  type MessageInitShape,
  type MessageShape,
  toBinary,
  toJsonString,
} from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { errorMessageOf } from "../../foundation/errors/index.js";
import { decodeUnchecked, encodeUnchecked } from "../typed/index.js";
import { contentTypeHeader, type HeaderPairs } from "./headers.js";

interface FormatOptions {
  readonly binaryOptions?: Partial<BinaryReadOptions & BinaryWriteOptions> | undefined;
  readonly jsonOptions?: Partial<JsonReadOptions & JsonWriteOptions> | undefined;
}

/** Encoding of messages in one format. */
export interface MessageFormat extends FormatOptions {
  readonly isBinary: boolean;
  readonly contentType: string;
  /** Headers of an answer without metadata. */
  readonly pairs: HeaderPairs;
}

const binaryType = "application/proto";
export const jsonType = "application/json";

export function formatsOf({ binaryOptions, jsonOptions }: FormatOptions): Record<"binary" | "json", MessageFormat> {
  const formatOf = (contentType: string): MessageFormat => ({
    ...{ isBinary: contentType === binaryType, contentType, pairs: [[contentTypeHeader, contentType]] },
    ...{ binaryOptions, jsonOptions },
  });
  return { binary: formatOf(binaryType), json: formatOf(jsonType) };
}

/** True for the binary content type, false for JSON, undefined for any other. */
export function isBinaryType(contentType: string | null): boolean | undefined {
  if (contentType === binaryType) return true;
  const type = /^application\/(proto|json)(?:\s*;\s*charset\s*=\s*"?utf-?8"?)?\s*$/i.exec(contentType ?? "")?.[1];
  return type === undefined ? undefined : type.toLowerCase() === "proto";
}

/**
 * Encodes a message or its initializer.
 *
 * @throws ConnectError `resource_exhausted` if the message exceeds the limit
 */
export function encodeMessage<Desc extends DescMessage>(
  desc: Desc,
  message: MessageInitShape<Desc>,
  format: MessageFormat,
  limit: SizeLimit,
): Uint8Array {
  const payload = encoded(desc, message, format);
  checkSize(desc, payload, limit);
  return payload;
}

function encoded<Desc extends DescMessage>(
  desc: Desc,
  message: MessageInitShape<Desc>,
  { isBinary, binaryOptions, jsonOptions }: MessageFormat,
): Uint8Array {
  if (!isBinary) return new TextEncoder().encode(toJsonString(desc, create(desc, message), jsonOptions));
  if (binaryOptions === undefined) return encodeUnchecked(desc, message);
  return toBinary(desc, create(desc, message), binaryOptions);
}

/**
 * Decodes a message.
 *
 * @throws ConnectError `resource_exhausted` if the payload exceeds the limit, `invalid_argument` if it is invalid
 */
export function decodeMessage<Desc extends DescMessage>(
  desc: Desc,
  payload: Uint8Array,
  format: MessageFormat,
  limit: SizeLimit,
): MessageShape<Desc> {
  checkSize(desc, payload, limit);
  try {
    if (format.isBinary) {
      if (format.binaryOptions === undefined) return decodeUnchecked(desc, payload);
      return fromBinary(desc, payload, format.binaryOptions);
    }
    const text = new TextDecoder("utf-8", { fatal: true }).decode(payload);
    return fromJsonString(desc, text, { ignoreUnknownFields: true, ...format.jsonOptions });
  } catch (cause) {
    const [what, why] = [format.isBinary ? "Protobuf" : "JSON", errorMessageOf(cause)];
    const text = `the payload is not a valid ${desc.typeName} in ${what}: ${why}`;
    throw new ConnectError(text, Code.InvalidArgument, undefined, undefined, cause);
  }
}

/** Maximum size of a message, and the name of the option that sets it. */
export interface SizeLimit {
  readonly name: "readMaxBytes" | "writeMaxBytes";
  readonly bytes: number;
}

function checkSize({ typeName }: DescMessage, { length }: Uint8Array, { name, bytes }: SizeLimit): void {
  if (length <= bytes) return;
  throw new ConnectError(`${typeName} has ${length} bytes; ${name} is ${bytes}`, Code.ResourceExhausted);
}
