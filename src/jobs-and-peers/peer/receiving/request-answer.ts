/** Answer to a request, converted from the return value of its handler. */

import type { Answer } from "../../../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { errorMessageOf, HawserError, namesOf } from "../../../foundation/errors/index.js";
import { checkContent, checkHeaders, type HeadersInput, type Payload } from "../../queue/enqueue/index.js";
import { ErrorNumber } from "../../wire/index.js";
import { type FrameHeaders, frameHeaders } from "../core/frame-headers.js";
import type { IncomingRequest } from "./incoming-request.js";

/** Answer of a request handler with a payload, headers, or both. */
interface AnswerToSend {
  readonly payload?: Payload | undefined;
  /** Object of header names with a value or an array of values, or an iterable of `[name, value]` pairs. */
  readonly headers?: HeadersInput | undefined;
  /**
   * Transactional handlers only: rolls the transaction back before the answer is sent. Default: false, which commits
   * before the answer is sent.
   */
  readonly rollBack?: boolean | undefined;
}

/** Encoded answer of a handler. */
export class RequestAnswer implements Answer {
  readonly code = ErrorNumber.UNSPECIFIED;
  readonly message = "";
  readonly begun = true;
  readonly id: number;
  readonly payload: Uint8Array;
  headers: FrameHeaders;
  /** True to roll back the handler's transaction before the answer is sent. */
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
 * Converts the return value of a handler to an answer; an answer is returned unchanged.
 *
 * @throws HawserError `handler_failed`, `invalid_argument`, `payload_too_large`, naming the problem
 */
export function answerOf(returned: unknown, { id, maxAnswerBytes }: IncomingRequest): RequestAnswer {
  if (returned instanceof RequestAnswer) return returned;
  const { payload = noBytes, headers, rollBack = false } = isAnswer(returned) ? returned : { payload: returned };
  const content = contentOf(payload, headers);
  if (typeof rollBack !== "boolean") {
    const text = `the request handler returned a rollBack of type ${typeof rollBack}; it must be a boolean`;
    throw new HawserError("handler_failed", text);
  }
  const { bytes } = content;
  if (bytes.length > maxAnswerBytes) {
    throw new HawserError(
      "payload_too_large",
      `the handler returned ${bytes.length} bytes; the sender of the request accepts at most ${maxAnswerBytes}`,
    );
  }
  const pairs = checkHeaders(content.headers);
  return new RequestAnswer(id, bytes, pairs === undefined ? [] : frameHeaders(pairs), rollBack);
}

/** Encodes payload and headers of an answer. @throws HawserError `handler_failed` for a value that cannot be encoded */
function contentOf(payload: unknown, headers: HeadersInput | undefined): ReturnType<typeof checkContent> {
  try {
    return checkContent((payload ?? noBytes) as Payload, headers);
  } catch (cause) {
    const why = errorMessageOf(cause);
    throw new HawserError("handler_failed", `the request handler returned an invalid answer: ${why}`, { cause });
  }
}

const answerNames: ReadonlySet<string> = new Set(
  namesOf<AnswerToSend>({ payload: true, headers: true, rollBack: true }),
);

/**
 * True for an `AnswerToSend`: an object with the property payload or headers and no unknown property. Any other value
 * is a payload.
 */
function isAnswer(given: unknown): given is AnswerToSend {
  if (typeof given !== "object" || given === null || given instanceof Uint8Array) return false;
  return ("payload" in given || "headers" in given) && Object.keys(given).every((name) => answerNames.has(name));
}
