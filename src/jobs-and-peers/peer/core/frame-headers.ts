/**
 * Conversion between headers in the API and headers in frames. Most messages have the same headers as the previous
 * message, so each direction caches its last conversion by object identity.
 */

import type { PayloadHeaders } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import type { Headers } from "../../channel/index.js";

export type FrameHeaders = PayloadHeaders["headers"];

let outgoing: Headers = [];
let asFrame: FrameHeaders = [];

/** Converts headers for a frame. The pairs must not change afterwards. */
export function frameHeaders(pairs: Headers): FrameHeaders {
  if (pairs !== outgoing) {
    asFrame = pairs.map(([name, value]) => ({ name, value }));
    outgoing = pairs;
  }
  return asFrame;
}

let incoming: FrameHeaders = [];
let asPairs: Headers = [];

/** Converts headers of a frame to immutable pairs. */
export function pairsOfFrame(headers: FrameHeaders): Headers {
  if (headers !== incoming) {
    asPairs = Object.freeze(headers.map(({ name, value }) => Object.freeze([name, value] as const)));
    incoming = headers;
  }
  return asPairs;
}
