/**
 * Metadata: the `Headers` of Connect as pairs of name and value, which is what messages carry.
 *
 * Names and values are Connect's own, with lower-case names. Of an answer, trailers have the prefix `trailer-`.
 */
import { type Code, ConnectError } from "@connectrpc/connect";
import { rpcConstants } from "../../generated/ts/settings/connect.js";

/** The headers of a message, in their order. Names may repeat. */
export type HeaderPairs = readonly (readonly [name: string, value: string])[];

export const contentTypeHeader = "content-type";
export const timeoutHeader = "connect-timeout-ms";
export const versionHeader = "connect-protocol-version";
export const encodingHeader = "content-encoding";
const trailerPrefix = "trailer-";

/** Those that calls and answers have without metadata. Whoever reads their values checks them. */
const knownHeaders: readonly string[] = [
  ...[contentTypeHeader, versionHeader, timeoutHeader],
  ...[rpcConstants.methodHeader, rpcConstants.callHeader],
];

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

/** The first value of a header. An iterator, and the arrays that it makes, would cost as much as all else of a short call. */
export function firstValue(pairs: HeaderPairs, name: string): string | undefined {
  for (let index = 0; index < pairs.length; index++) if (pairs[index]![0] === name) return pairs[index]![1];
  return undefined;
}

/** As a message carries them. */
export function pairsOf(header: Headers): HeaderPairs {
  return [...header];
}

/** The pairs of an answer. */
export function answerPairs(header: Headers, trailer: Headers | undefined): HeaderPairs {
  const pairs = [...header];
  for (const [name, value] of trailer ?? []) pairs.push([`${trailerPrefix}${name}`, value]);
  return pairs;
}

/**
 * The headers of a received message. Few programs look at them, and to make `Headers` takes longer than everything else that
 * is done for a call: they are made when they are asked for, or when there is metadata, which must be checked.
 */
export class ReceivedHeaders {
  #header: Headers | undefined;
  #trailer: Headers | undefined;

  readonly #pairs: HeaderPairs;
  readonly #code: Code;
  readonly #hasTrailer: boolean;

  /**
   * @param code of the error where a header cannot be held
   * @param hasTrailer names with the prefix of trailers are trailers, as in answers
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

  /** As `Headers` has it. */
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
      `header ${JSON.stringify(name)} has a name or value that HTTP does not know: names are ASCII, values Latin-1 without control characters; encode others, with a name that ends with -bin`,
      code,
    );
  }
}
