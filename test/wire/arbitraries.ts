/**
 * Frames of every kind, as fast-check makes them up.
 */
import fc from "fast-check";
import { errorTable } from "../../src/foundation/errors/index.js";
import {
  type Batch,
  Capability,
  Compression,
  Delivery,
  type Frame,
  type FrameKind,
} from "../../src/jobs-and-peers/wire/index.js";

const safe = fc.maxSafeNat();
const key = fc.integer({ min: 1, max: 0x7fffffff });
const epoch = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER });
const bytes32 = fc.uint8Array({ minLength: 32, maxLength: 32 });
const capabilities = fc.subarray(
  Object.values(Capability).filter((value): value is Capability => typeof value === "number" && value > 0),
);
const version = fc.integer({ min: 1, max: 0xffffffff });
const codes = Object.values(errorTable).map(({ wireCode }) => wireCode);

// Control characters and halves of surrogate pairs are in no text of the protocol.
const textOf = (maxLength: number): fc.Arbitrary<string> =>
  fc.string({ unit: "grapheme", maxLength }).map((text) => text.replace(/\p{Cc}/gu, ""));
const name = textOf(40)
  .map((text) => text.replaceAll(":", ""))
  .filter((text) => text !== "");
const headerName = fc
  .string({ unit: fc.integer({ min: 0x21, max: 0x7e }).map((code) => String.fromCharCode(code)), minLength: 1 })
  .map((text) => text.replaceAll(":", "-"));
const header = fc.record({ name: headerName, value: textOf(60) });

const payload = fc.oneof(
  { weight: 20, arbitrary: fc.uint8Array({ maxLength: 200 }) },
  {
    weight: 1,
    arbitrary: fc.integer({ min: 16_000, max: 140_000 }).map((length) => new Uint8Array(length).fill(length)),
  },
);

/** Entries for some of the payloads, by ascending index. */
function sparse<T>(count: number, entry: fc.Arbitrary<T>): fc.Arbitrary<({ index: number } & T)[]> {
  return fc
    .subarray(Array.from({ length: count }, (_, index) => index))
    .chain((indexes) => fc.tuple(...indexes.map((index) => entry.map((fields) => ({ index, ...fields })))));
}

export const batchArbitrary: fc.Arbitrary<Batch> = fc
  .record({
    epoch,
    delivery: fc.constantFrom(Delivery.AT_LEAST_ONCE, Delivery.AT_MOST_ONCE),
    number: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER - 10 }),
    topicId: key,
    payloads: fc.array(payload, { minLength: 1, maxLength: 10 }),
  })
  .chain(({ number, ...fixed }) =>
    fc.record({
      epoch: fc.constant(fixed.epoch),
      delivery: fc.constant(fixed.delivery),
      firstNumber: fc.constant(fixed.delivery === Delivery.AT_LEAST_ONCE ? number : 0),
      topicId: fc.constant(fixed.topicId),
      payloads: fc.constant(fixed.payloads),
      compressions: sparse(
        fixed.payloads.length,
        fc.record({
          compression: fc.constantFrom(Compression.GZIP, Compression.ZSTD),
          uncompressedBytes: fc.integer({ min: 0, max: 1 << 30 }),
        }),
      ),
      headers: sparse(fixed.payloads.length, fc.record({ headers: fc.array(header, { maxLength: 5 }) })),
    }),
  );

const values: { readonly [K in FrameKind]: fc.Arbitrary<Extract<Frame, { $case: K }>["value"]> } = {
  challenge: fc.record({ nonce: bytes32, minVersion: version, maxVersion: version, capabilities }),
  hello: fc.record({
    version,
    senderName: name,
    sourceTopic: name,
    listenerName: name,
    channelId: key,
    epoch,
    nonce: bytes32,
    capabilities,
    mac: bytes32,
  }),
  welcome: fc.record({
    cursorEpoch: safe,
    cursor: safe,
    backlog: safe,
    queued: safe,
    credit: epoch,
    maxMessageBytes: fc.integer({ min: 1, max: 1 << 30 }),
    capabilities,
    mac: bytes32,
  }),
  refuse: fc.record({ code: fc.constantFrom(...codes), message: textOf(100) }),
  batch: batchArbitrary,
  ack: fc.record({
    ...{ epoch: safe, number: safe, credit: epoch, backlog: safe, queued: safe },
    ...{ busy: fc.boolean(), live: fc.boolean() },
  }),
  goLive: fc.record({ epoch }),
  ping: fc.record({ token: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(String) }),
  pong: fc.record({ token: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }).map(String) }),
  goodbye: fc.record({ epoch: safe, number: safe }),
  request: fc.record({
    id: epoch,
    topicId: key,
    timeoutMs: key,
    maxAnswerBytes: fc.integer({ min: 1, max: 1 << 30 }),
    payload,
    headers: fc.array(header, { maxLength: 5 }),
  }),
  answer: fc.record({
    id: epoch,
    code: fc.constantFrom(0, ...codes),
    message: textOf(100),
    begun: fc.boolean(),
    payload,
    headers: fc.array(header, { maxLength: 5 }),
  }),
  cancel: fc.record({ id: epoch }),
};

/** Headers of a message. */
export const headersArbitrary = fc.array(header, { maxLength: 3 });

/** Frames that have headers, each message those that it is given. */
export function framesWithHeaders(headers: typeof headersArbitrary): fc.Arbitrary<Frame> {
  return fc.oneof(
    fc.record({ frame: batchArbitrary, lists: fc.array(headers, { minLength: 10, maxLength: 10 }) }).map(
      ({ frame, lists }): Frame => ({
        $case: "batch",
        value: { ...frame, headers: frame.headers.map(({ index }) => ({ index, headers: lists[index]! })) },
      }),
    ),
    fc
      .record({ value: values.request, headers })
      .map(({ value, headers }): Frame => ({ $case: "request", value: { ...value, headers } })),
    fc
      .record({ value: values.answer, headers })
      .map(({ value, headers }): Frame => ({ $case: "answer", value: { ...value, headers } })),
  );
}

/** Any frame, all kinds alike. */
export const frameArbitrary: fc.Arbitrary<Frame> = fc.oneof(
  ...Object.entries(values).map(([kind, arbitrary]) =>
    (arbitrary as fc.Arbitrary<unknown>).map((value) => ({ $case: kind, value }) as Frame),
  ),
);
