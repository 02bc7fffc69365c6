/**
 * Metadata: the `Headers` of Connect as pairs of name and value, which is what messages carry.
 *
 * Names and values are Connect's own, with lower-case names. Of an answer, trailers have the prefix `trailer-`.
 */
import { type Code, ConnectError } from "@connectrpc/connect";

/** The headers of a message, in their order. Names may repeat. */
export type HeaderPairs = readonly (readonly [name: string, value: string])[];

export const contentTypeHeader = "content-type";
export const timeoutHeader = "connect-timeout-ms";
export const versionHeader = "connect-protocol-version";
export const encodingHeader = "content-encoding";
const trailerPrefix = "trailer-";

/** What an error that a handler throws may not set by its metadata: it belongs to the message. */
const protocolHeaders: ReadonlySet<string> = new Set([
  ...[contentTypeHeader, "content-length", encodingHeader, "accept-encoding", "host", "user-agent", "trailer", "date"],
  ...[timeoutHeader, versionHeader, "connect-content-encoding", "connect-accept-encoding"],
  ...[
    "grpc-encoding",
    "grpc-accept-encoding",
    "grpc-timeout",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
  ],
]);

/** True for a header that is metadata, and not of the protocol or of the carrier. */
export function isMetadata(name: string): boolean {
  return !protocolHeaders.has(name) && !name.startsWith("hawser-") && !name.startsWith("nats-");
}

/** As a message carries them. */
export function pairsOf(header: Headers): (readonly [string, string])[] {
  return [...header];
}

/** The pairs of an answer. */
export function answerPairs(header: Headers, trailer: Headers): (readonly [string, string])[] {
  const pairs = pairsOf(header);
  for (const [name, value] of trailer) pairs.push([`${trailerPrefix}${name}`, value]);
  return pairs;
}

/** The headers of a received request. @param code of the error where one cannot be held */
export function headerOf(pairs: HeaderPairs, code: Code): Headers {
  const header = new Headers();
  for (const [name, value] of pairs) append(header, name, value, code);
  return header;
}

/** The headers and the trailers of a received answer. @param code of the error where one cannot be held */
export function headerAndTrailerOf(pairs: HeaderPairs, code: Code): readonly [header: Headers, trailer: Headers] {
  const [header, trailer] = [new Headers(), new Headers()];
  for (const [name, value] of pairs) {
    if (/^trailer-./i.test(name)) append(trailer, name.slice(trailerPrefix.length), value, code);
    else append(header, name, value, code);
  }
  return [header, trailer];
}

function append(header: Headers, name: string, value: string, code: Code): void {
  try {
    header.append(name, value);
  } catch {
    throw new ConnectError(
      `header ${JSON.stringify(name)} has a name or value that HTTP does not know: names are ASCII, values Latin-1 without control characters; encode others, with a name that ends with -bin`,
      code,
    );
  }
}
