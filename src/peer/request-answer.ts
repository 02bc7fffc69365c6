/** The answer to a request, made of what its handler has returned. */
import { HawserError, namesOf } from "../errors/index.js";
import { type Answer, ErrorNumber } from "../wire/index.js";
import type { HeadersInput } from "./content.js";
import { checkContent } from "./destination.js";
import { type FrameHeaders, frameHeaders } from "./frame-headers.js";
import type { IncomingRequest } from "./incoming-request.js";
import type { AnswerToSend, Payload } from "./message.js";
import { checkHeaders } from "./options.js";

/** An answer, ready to be written. */
export class RequestAnswer implements Answer {
  readonly code = ErrorNumber.UNSPECIFIED;
  readonly message = "";
  readonly begun = true;
  readonly id: number;
  readonly payload: Uint8Array;
  headers: FrameHeaders;
  /** True: the transaction of the handler is rolled back before the answer leaves. */
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
  const { payload = noBytes, headers, rollBack = false } = isAnswer(returned) ? returned : { payload: returned };
  const content = contentOf(payload, headers);
  if (typeof rollBack !== "boolean") {
    const text = `the handler returned an object with a rollBack of type ${typeof rollBack} for a request; it must be a boolean`;
    throw new HawserError("handler_failed", text);
  }
  const { bytes } = content;
  if (bytes.length > maxAnswerBytes) {
    throw new HawserError(
      "payload_too_large",
      `the handler returned ${bytes.length} bytes; the sender of the request takes at most ${maxAnswerBytes}`,
    );
  }
  const pairs = checkHeaders(content.headers);
  return new RequestAnswer(id, bytes, pairs === undefined ? [] : frameHeaders(pairs), rollBack);
}

/** Bytes and headers of an answer. @throws HawserError `handler_failed` for a value that cannot travel */
function contentOf(payload: unknown, headers: HeadersInput | undefined): ReturnType<typeof checkContent> {
  try {
    return checkContent((payload ?? noBytes) as Payload, headers);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new HawserError("handler_failed", `the handler of a request returned what is no answer: ${why}`, { cause });
  }
}

const answerNames: ReadonlySet<string> = new Set(
  namesOf<AnswerToSend>({ payload: true, headers: true, rollBack: true }),
);

/** Whether it is an `AnswerToSend`: an object with payload or headers and nothing else. All others are payloads. */
function isAnswer(given: unknown): given is AnswerToSend {
  if (typeof given !== "object" || given === null || given instanceof Uint8Array) return false;
  return ("payload" in given || "headers" in given) && Object.keys(given).every((name) => answerNames.has(name));
}
