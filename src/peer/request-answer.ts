/** The answer to a request, made of what its handler has returned. */
import { HawserError } from "../errors/index.js";
import { type Answer, ErrorNumber } from "../wire/index.js";
import { type FrameHeaders, frameHeaders } from "./frame-headers.js";
import type { IncomingRequest } from "./incoming-request.js";
import { type AnswerToSend, bytesOf } from "./message.js";
import { checkHeaders } from "./options.js";

/** An answer, ready to be written. */
export class RequestAnswer implements Answer {
  readonly code = ErrorNumber.UNSPECIFIED;
  readonly message = "";
  readonly begun = true;
  readonly id: number;
  readonly payload: Uint8Array;
  headers: FrameHeaders;
  /** What the handler wrote in its transaction is rolled back before the answer leaves. */
  readonly rollBack: boolean;

  constructor(id: number, payload: Uint8Array, headers: FrameHeaders, rollBack: boolean) {
    this.id = id;
    this.payload = payload;
    this.headers = headers;
    this.rollBack = rollBack;
  }
}

export const noBytes = new Uint8Array(0);

/**
 * The answer that a handler's return value is, unless it was made of it before.
 *
 * @throws HawserError `handler_failed`, `invalid_argument`, `payload_too_large`, naming what is wrong with it
 */
export function answerOf(returned: unknown, { id, maxAnswerBytes }: IncomingRequest): RequestAnswer {
  if (returned instanceof RequestAnswer) return returned;
  const given = returned ?? {};
  const isPayload = typeof given === "string" || given instanceof Uint8Array;
  const { payload = noBytes, headers, rollBack = false } = (isPayload ? { payload: given } : given) as AnswerToSend;
  const bytes = bytesOf(payload);
  const isOther = !isPayload && !isAnswer(given);
  if (isOther || !(bytes instanceof Uint8Array)) {
    const otherType = typeof given === "object" ? "an object without payload and headers" : typeof given;
    const type = isOther ? otherType : `an object with a payload of type ${typeof payload}`;
    throw new HawserError(
      "handler_failed",
      `the handler returned ${type} for a request; return text, a Uint8Array, { payload, headers }, or nothing`,
    );
  }
  if (typeof rollBack !== "boolean") {
    const text = `the handler returned an object with a rollBack of type ${typeof rollBack} for a request; it must be a boolean`;
    throw new HawserError("handler_failed", text);
  }
  if (bytes.length > maxAnswerBytes) {
    throw new HawserError(
      "payload_too_large",
      `the handler returned ${bytes.length} bytes; the sender of the request takes at most ${maxAnswerBytes}`,
    );
  }
  const pairs = checkHeaders(headers);
  return new RequestAnswer(id, bytes, pairs === undefined ? [] : frameHeaders(pairs), rollBack);
}

/** Whether it is an `AnswerToSend`. Of any other object nothing would be sent, in silence. */
function isAnswer(given: unknown): boolean {
  if (typeof given !== "object" || given === null) return false;
  if ("payload" in given || "headers" in given) return true;
  return Object.getPrototypeOf(given) === Object.prototype && Object.keys(given).length === 0;
}
