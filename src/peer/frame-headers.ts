/**
 * Headers as users give and get them, and as frames have them. Most messages have those of the message before, which are
 * converted once: the same object on one side is the same object on the other.
 */
import type { Headers } from "../channel/index.js";
import type { PayloadHeaders } from "../wire/index.js";

/** Headers in a frame. */
export type FrameHeaders = PayloadHeaders["headers"];

let outgoing: Headers = [];
let asFrame: FrameHeaders = [];

/** For a frame; nobody may change the pairs later on. */
export function frameHeaders(pairs: Headers): FrameHeaders {
  if (pairs !== outgoing) {
    asFrame = pairs.map(([name, value]) => ({ name, value }));
    outgoing = pairs;
  }
  return asFrame;
}

let incoming: FrameHeaders = [];
let asPairs: Headers = [];

/** Of a frame, for handlers and callers, which cannot change them. */
export function pairsOfFrame(headers: FrameHeaders): Headers {
  if (headers !== incoming) {
    asPairs = Object.freeze(headers.map(({ name, value }) => Object.freeze([name, value] as const)));
    incoming = headers;
  }
  return asPairs;
}
