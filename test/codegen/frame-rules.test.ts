/**
 * Generated checks of frames that are sent, for the types that ts-proto makes. (Those that come are checked by the codec, with
 * the vectors of test/wire/; rules that no frame has: shop.test.ts.)
 */
import { describe, expect, it } from "vitest";
import type { Batch, Frame, Hello } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { FrameSchema } from "../../generated/ts/es/hawser/peer/v1/frames_pb.js";
import { checkHelloSenderName, limits, validateBatch, validateFrame } from "../../generated/ts/rules/peer/frames.js";

const hello: Hello = {
  version: 1,
  senderName: "billing-1",
  sourceTopic: "billing",
  listenerName: "orders-1",
  channelId: 7,
  epoch: 1_795_000_000_000,
  nonce: new Uint8Array(32),
  capabilities: [1],
  mac: new Uint8Array(32),
};

const batch: Batch = {
  epoch: 1,
  delivery: 1,
  firstNumber: 1,
  topicId: 1,
  payloads: [Uint8Array.of(1)],
  compressions: [],
  headers: [],
};

const withHello = (change: Partial<Hello>): Frame => ({ kind: { $case: "hello", value: { ...hello, ...change } } });

/** What a violation says, but for its remedy: `hello.epoch 0: must be …`. */
const said = (frame: Frame): string | undefined => {
  const violation = validateFrame(frame);
  return violation && `${violation.path} ${violation.value}: ${violation.rule}`;
};

describe("a frame", () => {
  it("is taken if it is good, or has no rules", () => {
    expect(validateFrame(withHello({}))).toBeUndefined();
    expect(validateFrame({ kind: { $case: "ping", value: { token: `${2n ** 64n - 1n}` } } })).toBeUndefined();
  });

  it("is refused with the way to the value, the value, the rule and the remedy", () => {
    expect(validateFrame(withHello({ senderName: "a:b" }))).toEqual({
      path: "hello.senderName",
      value: '"a:b"',
      rule: "must not contain ':' or control characters",
      remedy: "Use only what the rule allows.",
    });
    expect(validateFrame({ kind: undefined })).toEqual({
      path: "kind",
      value: "nothing",
      rule: `must be one of ${FrameSchema.oneofs[0]!.fields.map(({ localName }) => localName).join(", ")}`,
      remedy: "Set one of them.",
    });
  });

  const range = `must be an integer, 1 to ${limits.Hello.epoch.max}`;
  it.each<[change: Partial<Hello>, says: string]>([
    [{ nonce: new Uint8Array(31) }, "hello.nonce 31 bytes: must be exactly 32 bytes long"],
    [{ channelId: 0 }, "hello.channelId 0: must be at least 1"],
    [{ epoch: 0 }, `hello.epoch 0: ${range}`],
    [{ epoch: limits.Hello.epoch.max + 1 }, `hello.epoch ${limits.Hello.epoch.max + 1}: ${range}`],
    [{ epoch: 1.5 }, `hello.epoch 1.5: ${range}`],
    [{ capabilities: new Array(33).fill(1) }, "hello.capabilities 33 elements: must have at most 32 elements"],
    [{ sourceTopic: "a\0" }, 'hello.sourceTopic "a\\u0000": must be well-formed Unicode without NUL'],
    [{ listenerName: "" }, 'hello.listenerName "": must be 1 to 255 bytes long in UTF-8'],
    // A half of a surrogate pair would become another name in Postgres.
    [{ senderName: "a\ud83d" }, 'hello.senderName "a\\ud83d": must be well-formed Unicode without NUL'],
    // Bytes may be a secret.
    [{ mac: new Uint8Array(16).fill(0x41) }, "hello.mac 16 bytes: must be exactly 32 bytes long"],
  ])("is refused with its field, value and rule (case %#)", (change, says) => {
    expect(said(withHello(change))).toBe(says);
  });

  it("is refused with the element of a list", () => {
    const named = [
      { name: "trace", value: "1" },
      { name: "a b", value: "2" },
    ];
    const value = { ...batch, headers: [{ index: 0, headers: named }] };
    expect(said({ kind: { $case: "batch", value } })).toBe(
      `batch.headers[0].headers[1].name "a b": must be visible ASCII without ':'`,
    );
  });

  it("is checked without touching its payloads, of which it has the greatest number and not one more", () => {
    const payloads = (length: number): Uint8Array[] =>
      new Proxy(new Array<Uint8Array>(length), {
        get(target, property) {
          if (property !== "length") throw new Error(`payloads.${String(property)} was read`);
          return target.length;
        },
      });
    const { maxItems } = limits.Batch.payloads;
    expect(validateBatch({ ...batch, payloads: payloads(maxItems) })).toBeUndefined();
    expect(validateBatch({ ...batch, payloads: payloads(maxItems + 1) })).toMatchObject({
      path: "payloads",
      value: `${maxItems + 1} elements`,
    });
  });
});

describe("a single value", () => {
  it.each([
    ["a".repeat(255), true],
    ["a".repeat(256), false],
    ["€".repeat(85), true],
    ["€".repeat(86), false],
    ["😀".repeat(63), true],
    ["😀".repeat(64), false],
  ])("has its length measured in UTF-8 (case %#)", (name, good) => {
    expect(checkHelloSenderName(name) === undefined).toBe(good);
  });

  it("is shown shortened if it is a long text, with its length", () => {
    expect(checkHelloSenderName("ä".repeat(100_000))?.value).toBe(`"${"ä".repeat(60)}"… (200000 bytes)`);
  });

  it("is told by its type to a caller without types", () => {
    expect(checkHelloSenderName(undefined as never)).toMatchObject({ value: "undefined", rule: "must be a string" });
    expect(checkHelloSenderName({} as never)).toMatchObject({ value: "a value of type object" });
  });
});
