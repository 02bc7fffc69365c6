/**
 * The generated checks of frames, for the types that ts-proto makes.
 */
import { beforeAll, describe, expect, it } from "vitest";
import type { Batch, Frame, Hello } from "../../generated/ts/codecs/hawser/peer/v1/frames.js";
import { FrameSchema } from "../../generated/ts/es/hawser/peer/v1/frames_pb.js";
import {
  checkHelloSenderName,
  limits,
  validateAck,
  validateBatch,
  validateFrame,
  validateGoLive,
} from "../../generated/ts/rules/peer/frames.js";
import { type Shop, shop } from "./support/shop.js";

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

const frame = (kind: Frame["kind"]): Frame => ({ kind });

describe("validateFrame", () => {
  it("takes a good frame", () => {
    expect(validateFrame(frame({ $case: "hello", value: hello }))).toBeUndefined();
  });

  it("refuses a frame of no kind", () => {
    expect(validateFrame(frame(undefined))).toEqual({
      path: "kind",
      value: "nothing",
      rule: `must be one of ${FrameSchema.oneofs[0]!.fields.map(({ localName }) => localName).join(", ")}`,
      remedy: "Set one of them.",
    });
  });

  it("takes kinds that have no rules", () => {
    expect(validateFrame(frame({ $case: "ping", value: { token: `${2n ** 64n - 1n}` } }))).toBeUndefined();
  });

  it("names the way to the value, the value, the rule and what to do", () => {
    expect(validateFrame(frame({ $case: "hello", value: { ...hello, senderName: "a:b" } }))).toEqual({
      path: "hello.senderName",
      value: '"a:b"',
      rule: "must not contain ':' or control characters",
      remedy: "Use only what the rule allows.",
    });
  });

  it("names the element of a list", () => {
    const headers = [
      {
        index: 0,
        headers: [
          { name: "trace", value: "1" },
          { name: "a b", value: "2" },
        ],
      },
    ];
    expect(validateFrame(frame({ $case: "batch", value: { ...batch, headers } }))).toMatchObject({
      path: "batch.headers[0].headers[1].name",
      value: '"a b"',
      rule: "must be visible ASCII without ':'",
    });
  });

  it.each([
    [
      "a nonce of another length",
      { nonce: new Uint8Array(31) },
      "hello.nonce",
      "31 bytes",
      "must be exactly 32 bytes long",
    ],
    ["a channel id of 0", { channelId: 0 }, "hello.channelId", "0", "must be at least 1"],
    ["an epoch of 0", { epoch: 0 }, "hello.epoch", "0", `must be an integer, 1 to ${limits.Hello.epoch.max}`],
    [
      "an epoch above the limit",
      { epoch: limits.Hello.epoch.max + 1 },
      "hello.epoch",
      `${limits.Hello.epoch.max + 1}`,
      `must be an integer, 1 to ${limits.Hello.epoch.max}`,
    ],
    [
      "an epoch that is no integer",
      { epoch: 1.5 },
      "hello.epoch",
      "1.5",
      `must be an integer, 1 to ${limits.Hello.epoch.max}`,
    ],
    [
      "too many capabilities",
      { capabilities: new Array(33).fill(1) },
      "hello.capabilities",
      "33 elements",
      "must have at most 32 elements",
    ],
    [
      "a name with NUL",
      { sourceTopic: "a\0" },
      "hello.sourceTopic",
      '"a\\u0000"',
      "must be well-formed Unicode without NUL",
    ],
    ["an empty name", { listenerName: "" }, "hello.listenerName", '""', "must be 1 to 255 bytes long in UTF-8"],
  ])("refuses %s", (_, change, path, value, rule) => {
    expect(validateFrame(frame({ $case: "hello", value: { ...hello, ...change } }))).toMatchObject({
      path,
      value,
      rule,
    });
  });
});

describe("violations", () => {
  it("show a long text shortened, with its length", () => {
    const found = checkHelloSenderName("ä".repeat(100_000));
    expect(found?.value).toBe(`"${"ä".repeat(60)}"… (200000 bytes)`);
  });

  it("never show bytes", () => {
    const mac = new Uint8Array(16).fill(0x41);
    const found = validateFrame(frame({ $case: "hello", value: { ...hello, mac } }));
    expect(found).toMatchObject({ path: "hello.mac", value: "16 bytes" });
  });
});

describe("a hot frame", () => {
  it("is checked without touching its payloads", () => {
    const untouchable = new Proxy(new Array<Uint8Array>(limits.Batch.payloads.maxItems), {
      get(target, property) {
        if (property !== "length") {
          throw new Error(`payloads.${String(property)} was read`);
        }
        return target.length;
      },
    });
    expect(validateBatch({ ...batch, payloads: untouchable })).toBeUndefined();
  });

  it("may have the greatest number of payloads and not one more", () => {
    const payloads = new Array<Uint8Array>(limits.Batch.payloads.maxItems + 1).fill(Uint8Array.of());
    expect(validateBatch({ ...batch, payloads })).toMatchObject({ path: "payloads", value: "65537 elements" });
  });

  it("needs an epoch, a known delivery and a topic id", () => {
    expect(validateBatch({ ...batch, epoch: 0 })?.path).toBe("epoch");
    expect(validateBatch({ ...batch, delivery: 0 })?.path).toBe("delivery");
    expect(validateBatch({ ...batch, delivery: 3 as never })?.path).toBe("delivery");
    expect(validateBatch({ ...batch, topicId: -1 })?.path).toBe("topicId");
    expect(validateGoLive({ epoch: 0 })?.path).toBe("epoch");
  });

  it("always gives credit", () => {
    const ack = { epoch: 0, number: 0, credit: 1, backlog: 0, busy: false, live: true };
    expect(validateAck(ack)).toBeUndefined();
    expect(validateAck({ ...ack, credit: 0 })).toMatchObject({
      path: "credit",
      rule: `must be an integer, 1 to ${limits.Ack.credit.max}`,
    });
  });
});

describe("single values", () => {
  it.each([
    ["a".repeat(255), true],
    ["a".repeat(256), false],
    ["€".repeat(85), true],
    ["€".repeat(86), false],
    ["😀".repeat(63), true],
    ["😀".repeat(64), false],
  ])("have their length measured in UTF-8 (case %#)", (name, good) => {
    expect(checkHelloSenderName(name) === undefined).toBe(good);
  });

  it("are no halves of surrogate pairs, which would become another name in Postgres", () => {
    expect(checkHelloSenderName("a\ud83d")?.rule).toBe("must be well-formed Unicode without NUL");
  });

  it("are told when a caller without types gives something else", () => {
    expect(checkHelloSenderName(undefined as never)).toMatchObject({ value: "undefined", rule: "must be a string" });
    expect(checkHelloSenderName({} as never)).toMatchObject({ value: "a value of type object" });
  });
});

describe("a kind of rule that the peer's frames do not use", () => {
  let rules: Shop["parcelRules"];
  beforeAll(async () => {
    rules = (await shop()).parcelRules;
  });

  const parcel = {
    address: "street",
    coldest: -40,
    size: 1,
    label: { text: "AB-12" },
    furtherLabels: [],
    sentAt: new Date(),
    shipping: undefined,
    volume: 0,
    tags: {},
    pictures: [],
    payment: { $case: "gift", value: false },
    extra: undefined,
  };

  it.each<[string, Record<string, unknown>, string | undefined]>([
    ["nothing wrong", {}, undefined],
    ["an optional number that is absent", { weight: undefined }, undefined],
    ["an optional number in its range", { weight: 1000n }, undefined],
    ["an optional number outside it", { weight: 0n }, "weight"],
    ["a negative limit", { coldest: -41 }, "coldest"],
    ["an enum without a value", { size: 0 }, "size"],
    ["a required message that is absent", { label: undefined }, "label"],
    ["a required time that is absent", { sentAt: undefined }, "sentAt"],
    ["a message with a mistake", { label: { text: "A-12" } }, "label.text"],
    ["a list with a mistake", { furtherLabels: [{ text: "1" }, { text: "" }] }, "furtherLabels[1].text"],
    ["a list that is too long", { furtherLabels: new Array(3).fill({ text: "1" }) }, "furtherLabels"],
    ["a message of another file with a mistake", { shipping: { carrier: "x".repeat(21) } }, "shipping.carrier"],
    ["a oneof that must be set", { payment: undefined }, "payment"],
    ["a number in a oneof", { payment: { $case: "cash", value: 0n } }, "cash"],
    ["bytes in a oneof", { payment: { $case: "voucher", value: new Uint8Array(5) } }, "voucher"],
    ["a message in a oneof", { payment: { $case: "stamp", value: { text: "x" } } }, "stamp.text"],
  ])("is checked too: %s", (_, change, path) => {
    expect(rules["validateParcel"]({ ...parcel, ...change })?.path).toBe(path);
  });

  it("is told in full where it is absent", () => {
    const absent = { value: "nothing", remedy: expect.stringMatching(/^Set /) };
    expect(rules["validateParcel"]({ ...parcel, label: undefined })).toEqual({
      ...absent,
      path: "label",
      rule: "must be present",
    });
    expect(rules["validateParcel"]({ ...parcel, payment: undefined })).toEqual({
      ...absent,
      path: "payment",
      rule: "must be one of cash, voucher, stamp, gift",
    });
  });
});
