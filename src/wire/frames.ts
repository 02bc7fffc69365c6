/**
 * The frames as their generated code has them: the codec of each kind, the tags that lead to nested messages, and the
 * rules that hold for what comes in and for what goes out. Tags are asked of the generated encoders instead of being
 * written down, so that field numbers are said in the spec alone.
 */
import type { BinaryReader, BinaryWriter } from "@bufbuild/protobuf/wire";
import {
  Ack,
  Answer,
  Batch,
  Cancel,
  Challenge,
  Delivery,
  Frame as FrameEnvelope,
  GoLive,
  Goodbye,
  Header,
  Hello,
  PayloadCompression,
  PayloadHeaders,
  Ping,
  Pong,
  Refuse,
  Request,
  Welcome,
} from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { validateFrame } from "../../generated/ts/rules/peer/frames.js";
import type { Violation } from "../../generated/ts/rules/violation.js";
import { type ErrorCode, WireError } from "../errors/index.js";

/** One frame: its kind, as `$case`, and the value of that kind. */
export type Frame = NonNullable<FrameEnvelope["kind"]>;

/** The kinds of frames. */
export type FrameKind = Frame["$case"];

/** The value of a kind of frame. */
type ValueOf<K extends FrameKind> = Extract<Frame, { $case: K }>["value"];

/** Who calls whom on which channel: what a Hello says beside its proof. */
export type HelloFields = Pick<Hello, "senderName" | "sourceTopic" | "listenerName" | "connectionKey" | "epoch">;

/** What a listener says of a channel when it accepts a connection. */
export type WelcomeFields = Pick<Welcome, "cursorEpoch" | "cursor" | "backlog" | "credit">;

/** Encoder and decoder of one message. */
export interface Codec<T> {
  encode(message: T, writer?: BinaryWriter): BinaryWriter;
  decode(input: BinaryReader | Uint8Array, length?: number): T;
}

/** Each kind's codec. The compiler reports one that is missing. */
export const codecs: { readonly [K in FrameKind]: Codec<ValueOf<K>> } = {
  challenge: Challenge,
  hello: Hello,
  welcome: Welcome,
  refuse: Refuse,
  batch: Batch,
  ack: Ack,
  goLive: GoLive,
  ping: Ping,
  pong: Pong,
  goodbye: Goodbye,
  request: Request,
  answer: Answer,
  cancel: Cancel,
};

const noBytes = new Uint8Array(0);

/** The message with no field set: what decoding nothing gives. */
export function emptyOf<T>(codec: Codec<T>): T {
  return codec.decode(noBytes);
}

/** The tag (field number and wire type, at most 15 << 3 | 7) that the encoding of `message` starts with. */
function firstTag<T>(codec: Codec<T>, message: T): number {
  const tag = codec.encode(message).finish()[0];
  if (tag === undefined || tag > 0x7f) throw new Error("a tag of a frame takes more than one byte");
  return tag;
}

/** The kind of frame behind each tag of `Frame`. */
export const kindOfTag: ReadonlyMap<number, FrameKind> = new Map(
  (Object.keys(codecs) as FrameKind[]).map((kind) => {
    const value = emptyOf(codecs[kind] as Codec<unknown>);
    return [firstTag(FrameEnvelope, { kind: { $case: kind, value } as Frame }), kind];
  }),
);

/** The tag of a batch in `Frame`, and of a payload in `Batch`. */
export const batchTag = firstTag(FrameEnvelope, { kind: { $case: "batch", value: emptyOf(Batch) } });
export const payloadTag = firstTag(Batch, { ...emptyOf(Batch), payloads: [noBytes] });

/** The tag of the headers of a payload in `Batch`, and within them that of the payload's index and that of a header. */
export const headersTag = firstTag(Batch, { ...emptyOf(Batch), headers: [emptyOf(PayloadHeaders)] });
export const headersIndexTag = firstTag(PayloadHeaders, { index: 1, headers: [] });
export const headerTag = firstTag(PayloadHeaders, { index: 0, headers: [emptyOf(Header)] });

/** A connection keeps the last list of headers, if it is no longer than this: there may be very many connections. */
export const keptHeadersBytes = 4096;

/** The frames that end with a list of headers: their tag in `Frame`, and that of a header. */
export const endingWithHeaders = {
  request: {
    tag: firstTag(FrameEnvelope, { kind: { $case: "request", value: emptyOf(Request) } }),
    headerTag: firstTag(Request, { ...emptyOf(Request), headers: [emptyOf(Header)] }),
  },
  answer: {
    tag: firstTag(FrameEnvelope, { kind: { $case: "answer", value: emptyOf(Answer) } }),
    headerTag: firstTag(Answer, { ...emptyOf(Answer), headers: [emptyOf(Header)] }),
  },
} as const;

/** The element of a repeated field of messages; never for any other field. */
type Nested<F> = F extends readonly (infer E)[]
  ? E extends Uint8Array | string | number | boolean
    ? never
    : E
  : never;

/** Each field of a message that nests messages, with their codec and what they nest themselves. */
type NestedFields<T> = {
  readonly [F in keyof T as [Nested<T[F]>] extends [never] ? never : F]: readonly [
    codec: Codec<Nested<T[F]>>,
    fields: NestedFields<Nested<T[F]>>,
  ];
};

/** The nested messages of each kind. The compiler reports one that is missing. */
const nestedFields: { readonly [K in FrameKind]: NestedFields<ValueOf<K>> } = {
  challenge: {},
  hello: {},
  welcome: {},
  refuse: {},
  batch: {
    compressions: [PayloadCompression, {}],
    headers: [PayloadHeaders, { headers: [Header, {}] }],
  },
  ack: {},
  goLive: {},
  ping: {},
  pong: {},
  goodbye: {},
  request: { headers: [Header, {}] },
  answer: { headers: [Header, {}] },
  cancel: {},
};

/** The tags of a message's nested messages, each with theirs. */
export type Nesting = ReadonlyMap<number, Nesting>;

function nestingOf(codec: Codec<unknown>, fields: object): Nesting {
  return new Map(
    Object.entries(fields as Record<string, [Codec<unknown>, object]>).map(([field, [nested, within]]) => {
      const message = { ...(emptyOf(codec) as object), [field]: [emptyOf(nested)] };
      return [firstTag(codec, message), nestingOf(nested, within)];
    }),
  );
}

/** What is nested in the kinds that nest messages, and in which of their fields. */
export const nestings: ReadonlyMap<FrameKind, { readonly fields: readonly string[]; readonly nesting: Nesting }> =
  new Map(
    (Object.keys(codecs) as FrameKind[])
      .filter((kind) => Object.keys(nestedFields[kind]).length > 0)
      .map((kind) => {
        const nesting = nestingOf(codecs[kind] as Codec<unknown>, nestedFields[kind]);
        return [kind, { fields: Object.keys(nestedFields[kind]), nesting }];
      }),
  );

/**
 * Checks a frame against the spec: the rules on single fields, and what it says in words of the fields of a batch.
 *
 * @param code what a breach is called: `protocol_violation` coming in; going out `invalid_argument` (the default), told
 * to the caller who made it and not to the other side
 * @throws WireError with that code, naming the field, its value and the rule
 */
export function checkFrame(
  frame: Frame,
  code: Extract<ErrorCode, "protocol_violation" | "invalid_argument"> = "invalid_argument",
): void {
  const violation = violationOf(frame);
  if (violation !== undefined) {
    const { path, value, rule, remedy } = violation;
    throw new WireError(code, `${path} is ${value}; it ${rule}. ${remedy}`);
  }
  const fault = frame.$case === "batch" ? faultOfBatch(frame.value) : undefined;
  if (fault !== undefined) throw new WireError(code, fault);
}

/** A list of headers that obeys the rules. Most messages have that of the message before. */
let lastValid: readonly Header[] | undefined;

function violationOf(frame: Frame): Violation | undefined {
  const { $case: kind, value } = frame;
  if ((kind !== "batch" && kind !== "request" && kind !== "answer") || value.headers.length === 0) {
    return validateFrame({ kind: frame });
  }
  const { headers } = value;
  let last: readonly Header[];
  // Only what was not checked before; where something is wrong, all of it, so that the error tells the right place.
  if (kind === "batch") {
    last = value.headers.at(-1)!.headers;
    let before = lastValid;
    value.headers = value.headers.filter((entry) => {
      const isNew = entry.headers !== before;
      before = entry.headers;
      return isNew;
    });
  } else {
    last = value.headers;
    if (last === lastValid) value.headers = [];
  }
  const isWrong = validateFrame({ kind: frame }) !== undefined;
  value.headers = headers as never;
  if (isWrong) return validateFrame({ kind: frame });
  lastValid = last;
  return undefined;
}

/**
 * What is wrong between the fields of a batch, or undefined:
 * - it has at least one payload;
 * - at-least-once numbers begin at 1 or above and end at 2^53 − 1 or below; at-most-once has 0;
 * - compressions and headers name payloads of the batch, in ascending order, each once.
 */
function faultOfBatch({ delivery, firstNumber, payloads, compressions, headers }: Batch): string | undefined {
  const count = payloads.length;
  if (count === 0) return "a Batch has no payload";
  if (delivery === Delivery.AT_MOST_ONCE) {
    if (firstNumber !== 0) return `an at-most-once Batch has first_number ${firstNumber}; it must be 0`;
  } else if (firstNumber === 0) {
    return "an at-least-once Batch has first_number 0; numbers begin at 1";
  } else if (firstNumber > Number.MAX_SAFE_INTEGER - count + 1) {
    return `a Batch of ${count} messages from ${firstNumber} leaves the range of numbers, 2^53 − 1`;
  }
  return faultOfIndexes(compressions, count, "compressions") ?? faultOfIndexes(headers, count, "headers");
}

function faultOfIndexes(
  entries: readonly { readonly index: number }[],
  count: number,
  field: string,
): string | undefined {
  let previous = -1;
  for (const { index } of entries) {
    if (index <= previous) return `Batch.${field} names index ${index} after ${previous}; indexes must ascend`;
    if (index >= count) return `Batch.${field} names index ${index} of ${count} payloads`;
    previous = index;
  }
  return undefined;
}
