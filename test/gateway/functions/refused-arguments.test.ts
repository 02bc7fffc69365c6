/**
 * Invalid arguments are refused with their rule before anything is sent to NATS.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { atDepth } from "../../support/depth.js";
import { eventually } from "../../support/eventually.js";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../../support/nats-server.js";
import { byPosition, familyOf, isOptional, type SampleCall, sampleCalls } from "./every-function.js";
import { parametersOf, referenceFunctions } from "./reference-table.js";
import { Witness } from "./witness.js";

let gateway: TestGateway;
let onlooker: NatsConnection;
/** Sees everything that anybody publishes. */
let witness: Witness;
let server: TestNatsServer;
beforeAll(async () => {
  server = await startNatsServer({ jetStream: true });
  onlooker = await connect({ servers: server.url });
  witness = await Witness.open(onlooker, ">");
  gateway = await testGateway({ natsUrl: server.url });
  // What serve itself publishes at its start: which role Postgres has.
  await witness.message();
});
afterAll(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await onlooker?.close();
  await server?.[Symbol.asyncDispose]();
});

afterEach(async () => expect(await witness.untaken()).toBe(0));

const calls = sampleCalls("refused");
/** True at full depth: each function is tried with each value. Else one function is, and the others with the first value. */
const isExhaustive = atDepth(10) === 10;
/** True for the variant that stands for those of other types of payload, which share its code. */
const isFirstVariant = ({ name }: SampleCall) => !/_(json|jsonb|binary)(_|$)/.test(name);
const given = (call: SampleCall, parameter: string, literal: string): string =>
  byPosition({ ...call, given: { ...call.given, [parameter]: literal } });

it("every function says which of its arguments is NULL", async () => {
  const tried: string[] = [];
  for (const call of calls) {
    for (const parameter of Object.keys(call.given)) {
      if (isOptional(call.name, parameter)) continue;
      tried.push(`${call.name} ${parameter}`);
      expect(await gateway.errorOf(given(call, parameter, "NULL")), `${call.name} ${parameter}`).toMatchObject({
        code: "22004",
        message: `${familyOf(call.name)}: the argument ${parameter} is NULL, and needs a value`,
        where: expect.stringContaining(call.name),
        hint: expect.stringMatching(new RegExp(`^Give ${parameter} a value[.;]`)),
      });
    }
  }
  const needed = referenceFunctions.flatMap((one) =>
    parametersOf(one).flatMap(({ name, hasDefault }) =>
      hasDefault || name === "timeout" ? [] : [`${one.name} ${name}`],
    ),
  );
  expect(tried.sort()).toEqual(needed.sort());
});

const subjects = [
  ...["", " ", "a b", "a\tb", "a\nb", "a\r\nPUB x 1", ".", ".a", "a.", "a..b", "*", "a.*", "a.*.b", ">", "a.>", "a>b"],
  ...["a*", "a\u0001b", "a\u007fb", "a\u00a0b", "\u0085", "x".repeat(1025), "ä".repeat(513)],
];
const buckets = ["", " ", "a b", "a.b", "a/b", "ä", "*", ">", "a*", "a\nb", "$x", "x".repeat(251)];
const keys = ["", " ", "a b", ".a", "a.", "a..b", "*", "a.*", ">", "ä", "a:b", "a\nb", "a\\b", "$x", "x".repeat(1025)];
const subjectRule =
  /must be words joined by '\.', without '\*', '>', white space and control characters|1 to 1024 bytes/;
const bucketRule = /must be letters of ASCII, digits, '_' and '-'|1 to 250 bytes/;

/** Invalid values of each parameter, with the rule that the error must name. */
const bad: Readonly<Record<string, readonly [values: readonly string[], rule: RegExp]>> = {
  subject: [subjects, subjectRule],
  reply: [subjects, subjectRule],
  bucket: [buckets, bucketRule],
  store: [buckets, bucketRule],
  key: [
    keys,
    /must be letters of ASCII, digits and any of - \/ _ = \. without '\.' at its ends or beside another|1 to 1024 bytes/,
  ],
  domain: [
    ["", " ", "a b", "a.b", "*", ">", "a\n", "\u0001", "x".repeat(256)],
    /must be a JetStream domain: no '\.', '\*' or '>', no white space|1 to 255 bytes/,
  ],
  revision: [["0", "-1", "9007199254740992", "-9223372036854775808"], /must be 1 to 9007199254740991/],
  stream: [
    ["", " ", "a b", "a.b", "*", ">", "a/b", "a\\b", "a\n", "\u0001", "x".repeat(256)],
    /must be the name of a stream: no '\.', '\*', '>', '\/' or '\\', no white space|1 to 255 bytes/,
  ],
  storage: [["", "disk", "File", "x".repeat(300)], /must be one of "?file"?, "?memory"?/],
  retention: [["", "Limits", "all"], /must be one of "?limits"?, "?interest"?, "?workqueue"?/],
  discard: [["", "Old", "none"], /must be one of "?old"?, "?new"?/],
  max_age_ms: [["-1", "3155760000001", "-9223372036854775808"], /must be 0 to 3155760000000/],
  max_messages: [["-1", "9007199254740992"], /must be 0 to 9007199254740991/],
  max_bytes: [["-1", "9007199254740992"], /must be 0 to 9007199254740991/],
  max_message_bytes: [["-1", "-2147483648"], /must be (?:0 to 2147483647|at least 0)/],
  duplicate_window_ms: [["0", "-1", "3155760000001"], /must be 1 to 3155760000000/],
  replicas: [["0", "6", "-1"], /must be 1 to 5/],
  name: [["", "x".repeat(1025), "ä".repeat(513)], /1 to 1024 bytes/],
};

/** Parameters without a rule, and those that the tests below try. */
const others = ["payload", "payloads", "data", "content", "headers", "timeout", "subjects"];

it("every function refuses what breaks a rule of its arguments", async () => {
  const parameters = new Set(referenceFunctions.flatMap((one) => parametersOf(one).map(({ name }) => name)));
  expect([...parameters].sort(), "parameters in `bad` or `others`").toEqual([...Object.keys(bad), ...others].sort());
  const triedFully = new Set<string>();
  for (const call of calls) {
    for (const [parameter, [values, rule]] of Object.entries(bad)) {
      if (!(parameter in call.given)) continue;
      const isTriedFully = isFirstVariant(call) && (isExhaustive || !triedFully.has(parameter));
      if (isTriedFully) triedFully.add(parameter);
      for (const value of isTriedFully ? values : values.slice(0, 1)) {
        const error = await gateway.errorOf(given(call, parameter, "$1"), [value]);
        expect(error, `${call.name} ${parameter} ${JSON.stringify(value)}`).toMatchObject({
          code: "22023",
          message: expect.stringMatching(rule),
          where: expect.stringContaining(call.name),
          hint: expect.stringMatching(/^Give an argument that obeys the rule/),
        });
        expect(error.message).toContain(`${familyOf(call.name)}: the argument ${parameter} is `);
        expect(error.message.length, "a message that can be read").toBeLessThan(600);
      }
    }
  }
});

it("a list of subjects has no NULL and one dimension, and is not empty", async () => {
  const calls = ["nats_create_stream('refused', $1)", "nats_update_stream('refused', $1)"];
  for (const call of calls) {
    const refusal = async (literal: string) => gateway.errorOf(`SELECT ${call}`, [literal]);
    const name = call.replace(/\(.*/, "");
    expect(await refusal("{a,NULL,b}")).toMatchObject({
      code: "22004",
      message: `${name}: the argument subjects[2] is NULL, and needs a value`,
    });
    expect(await refusal("{{a,b},{c,d}}")).toMatchObject({
      code: "22023",
      message: `${name}: the argument subjects[1] is a list, and must be a text`,
    });
    expect(await refusal("{}")).toMatchObject({
      code: "22023",
      message: expect.stringMatching(
        /of stream "refused" was refused: subjects is empty; name at least one subject\.$/,
      ),
    });
    const many = `{${Array.from({ length: 101 }, (_, nth) => `a${nth}`)}}`;
    expect(await refusal(many)).toMatchObject({ code: "22023", message: expect.stringContaining("101 elements") });
  }
});

/** Invalid headers, one of each kind: all the rules are in test/nats/operations/headers.test.ts. */
const badHeaders: readonly (readonly [json: string, rule: RegExp])[] = [
  ["[]", /object/],
  ['{"a": ["x", null]}', /"a" must be a string or an array of strings, and has null/],
  ['{"a": "x\\r\\nb: y"}', /value of "a" must not have CR or LF/],
  ['{"a b": "x"}', /name "a b" must be printable ASCII/],
];

it("every function refuses headers that cannot be", async () => {
  for (const call of calls.filter(({ given }) => "headers" in given)) {
    for (const [json, rule] of badHeaders) {
      const error = await gateway.errorOf(given(call, "headers", "$1"), [json]);
      expect(error, `${call.name} ${json}`).toMatchObject({
        code: "22023",
        message: expect.stringMatching(rule),
        where: expect.stringContaining(call.name),
      });
      expect(error.message, json).toContain("headers");
    }
  }
});

it("a time limit beyond what the gateway allows is refused with that limit", async () => {
  for (const call of calls.filter(({ given }) => "timeout" in given)) {
    expect(await gateway.errorOf(given(call, "timeout", "2147483647")), call.name).toMatchObject({
      code: "22023",
      message: "nats_request_*: the argument timeout is 2147483647 ms, and this gateway allows at most 60000 ms",
      hint: expect.stringContaining("--tune maxCallTimeoutMs"),
    });
  }
});

describe("the limits of a gateway", () => {
  let small: TestGateway;
  beforeAll(async () => {
    small = await testGateway({
      tuning: { maxRequestBytes: 65_536, maxResponseBytes: 65_536 },
    });
  });
  afterAll(() => small?.[Symbol.asyncDispose]());

  it("refuse a call that is longer, and the session goes on", async () => {
    expect(await small.value("SELECT nats_put_text('refused_small', 'k', 'v')")).toBe("1");
    const error = await small.errorOf("SELECT nats_put_text('refused_small', 'k', repeat('x', 65536))");
    expect(error).toMatchObject({ code: "54000", message: expect.stringContaining("65536") });
    expect(`${error.message} ${error.hint}`).toMatch(/maxRequestBytes/);
    expect(await small.value("SELECT nats_get_text('refused_small', 'k')")).toBe("v");
  });

  it("refuse an answer that is longer", async () => {
    await small.value("SELECT nats_put_binary('refused_long', 'k', decode(repeat('00', 40000), 'hex'))");
    expect(await small.errorOf("SELECT nats_get_binary('refused_long', 'k')")).toMatchObject({
      code: "54000",
      message: expect.stringContaining("65536"),
      hint: expect.stringContaining("--tune maxResponseBytes"),
    });
    expect(await small.value("SELECT nats_get_text('refused_long', 'nothing') IS NULL")).toBe(true);
    await small.value("SELECT nats_put_file('refused_long', 'f', decode(repeat('00', 40000), 'hex'))");
    expect(await small.errorOf("SELECT nats_get_file('refused_long', 'f')")).toMatchObject({ code: "54000" });
    expect(await small.value("SELECT size FROM nats_get_file_info('refused_long', 'f')")).toBe("40000");
  });

  it("are the time limit of a request without one, or with a negative one, which is 10 seconds otherwise", async () => {
    const callTimeoutMs = 500;
    await using brief = await testGateway({ callTimeoutMs, tuning: { maxCallTimeoutMs: callTimeoutMs } });
    brief.nats.subscribe("refused_silent", { callback: () => undefined });
    await brief.nats.flush();
    await eventually("its calls reach NATS", () =>
      brief.value("SELECT nats_flush()").then(
        () => true,
        () => false,
      ),
    );
    const asked = ["NULL", "-1", "-2147483648"].map(async (timeout) => {
      const session = await brief.connect();
      const request = session.query(`SELECT nats_request_text('refused_silent', 'x', ${timeout})`);
      await expect(request, timeout).rejects.toMatchObject({
        code: "NA001",
        // That of the request, or of the gateway, where the request's own came too late for it.
        message: expect.stringMatching(/ \d{1,4} ms/),
      });
      await session.end();
    });
    await Promise.all(asked);
  });
});
