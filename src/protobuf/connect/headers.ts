/**
 * Conversion of Connect's metadata (`Headers`) to pairs of name and value, which messages carry.
 *
 * Names are in lower case, and values are unchanged. Trailers of an answer have the prefix `trailer-`.
 */
import { type Code, ConnectError } from "@connectrpc/connect";
import { rpcConstants } from "../../../generated/ts/settings/connect.js";

/** Headers of a message in their order. A name can occur several times. */
export type HeaderPairs = readonly (readonly [name: string, value: string])[];

export const contentTypeHeader = "content-type";
export const timeoutHeader = "connect-timeout-ms";
export const versionHeader = "connect-protocol-version";
export const encodingHeader = "content-encoding";
const trailerPrefix = "trailer-";

/** Headers of calls and answers without metadata. Their values are validated where they are used. */
const knownHeaders: readonly string[] = [
  ...[contentTypeHeader, versionHeader, timeoutHeader],
  ...[rpcConstants.methodHeader, rpcConstants.callHeader],
];

/** Headers that the metadata of a handler's error must not set, because they belong to the message. */
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

/** True for metadata; false for a header of the protocol or the transport. */
export function isMetadata(name: string): boolean {
  return !protocolHeaders.has(name) && !name.startsWith("hawser-") && !name.startsWith("nats-");
}

/** First value of a header. */
export function firstValue(pairs: HeaderPairs, name: string): string | undefined {
  // An iterator would take a large part of the time of a short call.
  for (let index = 0; index < pairs.length; index++) if (pairs[index]![0] === name) return pairs[index]![1];
  return undefined;
}

export function pairsOf(header: Headers): HeaderPairs {
  return [...header];
}

/** Pairs for an answer, with its trailers. */
export function answerPairs(header: Headers, trailer: Headers | undefined): HeaderPairs {
  const pairs = [...header];
  for (const [name, value] of trailer ?? []) pairs.push([`${trailerPrefix}${name}`, value]);
  return pairs;
}

/**
 * Headers of a received message. The `Headers` objects are created on first use, because few programs use them and
 * creating them takes longer than the rest of a call. If there is metadata, they are created at once to validate it.
 */
export class CallHeaders {
  #header: Headers | undefined;
  #trailer: Headers | undefined;

  readonly #pairs: HeaderPairs;
  readonly #code: Code;
  readonly #hasTrailer: boolean;

  /**
   * @param code code of the error for a header that `Headers` cannot hold
   * @param hasTrailer true for answers: names with the prefix `trailer-` are trailers
   */
  constructor(pairs: HeaderPairs, code: Code, hasTrailer: boolean) {
    this.#pairs = pairs;
    this.#code = code;
    this.#hasTrailer = hasTrailer;
    let seen = 0;
    for (let index = 0; index < pairs.length; index++) {
      const bit = 1 << knownHeaders.indexOf(pairs[index]![0]);
      if (bit < 0 || (seen & bit) !== 0) {
        this.#read();
        return;
      }
      seen |= bit;
    }
  }

  /** Value as `Headers.get` returns it. */
  get(name: string): string | null {
    if (this.#header !== undefined) return this.#header.get(name);
    return firstValue(this.#pairs, name) ?? null;
  }

  get header(): Headers {
    return this.#header ?? this.#read();
  }

  get trailer(): Headers {
    if (this.#trailer === undefined) this.#read();
    return this.#trailer!;
  }

  #read(): Headers {
    const [header, trailer] = [new Headers(), new Headers()];
    for (const [name, value] of this.#pairs) {
      if (this.#hasTrailer && /^trailer-./i.test(name)) {
        append(trailer, name.slice(trailerPrefix.length), value, this.#code);
      } else append(header, name, value, this.#code);
    }
    this.#trailer = trailer;
    this.#header = header;
    return header;
  }
}

function append(header: Headers, name: string, value: string, code: Code): void {
  try {
    header.append(name, value);
  } catch {
    throw new ConnectError(
      `header ${JSON.stringify(name)} has a name or value that is invalid in HTTP: names are ASCII, values Latin-1 without control characters; encode others, with a name that ends with -bin`,
      code,
    );
  }
}
