/**
 * What cannot be sent is refused with its rule, before NATS sees anything of it.
 */
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type TestGateway, testGateway } from "../../support/gateway.js";
import { startNatsServer, type TestNatsServer } from "../../support/nats-server.js";
import { byPosition, familyOf, sampleCalls } from "./every-function.js";
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

const subjects = [
  "",
  " ",
  "a b",
  "a\tb",
  "a\nb",
  "a\r\nPUB x 1",
  ".",
  ".a",
  "a.",
  "a..b",
  "*",
  "a.*",
  "a.*.b",
  ">",
  "a.>",
  "a>b",
  "a*",
  "a\u0001b",
  "a\u007fb",
  "a\u00a0b",
  "\u0085",
  "x".repeat(1025),
  "ä".repeat(513),
];
const buckets = ["", " ", "a b", "a.b", "a/b", "ä", "*", ">", "a*", "a\nb", "$x", "x".repeat(251)];
const keys = ["", " ", "a b", ".a", "a.", "a..b", "*", "a.*", ">", "ä", "a:b", "a\nb", "a\\b", "$x", "x".repeat(1025)];
const domains = ["", " ", "a b", "a.b", "*", ">", "a\n", "\u0001", "x".repeat(256)];
const names = ["", "x".repeat(1025), "ä".repeat(513)];

const bad: Readonly<Record<string, readonly string[]>> = {
  subject: subjects,
  reply: subjects,
  bucket: buckets,
  store: buckets,
  key: keys,
  domain: domains,
  name: names,
};

/** The rule, as the error must tell it. */
const rules: Readonly<Record<string, RegExp>> = {
  subject: /must be words joined by '\.', without '\*', '>', white space and control characters|1 to 1024 bytes/,
  reply: /must be words joined by '\.', without '\*', '>', white space and control characters|1 to 1024 bytes/,
  bucket: /must be letters of ASCII, digits, '_' and '-'|1 to 250 bytes/,
  store: /must be letters of ASCII, digits, '_' and '-'|1 to 250 bytes/,
  key: /must be letters of ASCII, digits and any of - \/ _ = \. without '\.' at its ends or beside another|1 to 1024 bytes/,
  domain: /must be a JetStream domain: no '\.', '\*' or '>', no white space|1 to 255 bytes/,
  name: /1 to 1024 bytes/,
};

const ruled = sampleCalls("refused").filter(({ given }) => Object.keys(given).some((parameter) => parameter in bad));

describe.each(ruled)("$name", (call) => {
  it("refuses what breaks a rule of its arguments, and NATS sees nothing", async () => {
    for (const [parameter, values] of Object.entries(bad)) {
      if (!(parameter in call.given)) continue;
      for (const value of values) {
        const sql = byPosition({ ...call, given: { ...call.given, [parameter]: "$1" } });
        const error = await gateway.errorOf(sql, [value]);
        expect(error.code, `${parameter} ${JSON.stringify(value)}`).toBe("22023");
        expect(error.message).toContain(`${familyOf(call.name)}: the argument ${parameter} is `);
        expect(error.where).toContain(call.name);
        expect(error.message).toMatch(rules[parameter]!);
        expect(error.hint).toMatch(/^Give an argument that obeys the rule/);
        expect(error.message.length, "a message that can be read").toBeLessThan(600);
      }
    }
    expect(await witness.untaken()).toBe(0);
  });
});

describe("headers", () => {
  const cases: readonly (readonly [json: string, rule: RegExp])[] = [
    ["[]", /object/],
    ['["a"]', /object/],
    ['"a"', /object/],
    ["1", /object/],
    ["true", /object/],
    ['{"a": 1}', /"a" must be a string or an array of strings, and has a number/],
    ['{"a": null}', /"a" must be a string or an array of strings, and has null/],
    ['{"a": {}}', /"a" must be a string or an array of strings, and has an object/],
    ['{"a": true}', /"a" must be a string or an array of strings, and has a boolean/],
    ['{"a": ["x", 1]}', /"a" must be a string or an array of strings, and has a number/],
    ['{"a": [["x"]]}', /"a" must be a string or an array of strings, and has an array/],
    ['{"a": ["x", null]}', /"a" must be a string or an array of strings, and has null/],
    ['{"a": "x\\r\\nb: y"}', /value of "a" must not have CR or LF/],
    ['{"a": ["x", "y\\n"]}', /value of "a" must not have CR or LF/],
    ['{"": "x"}', /name "" must be printable ASCII/],
    ['{"a b": "x"}', /name "a b" must be printable ASCII/],
    ['{"a:": "x"}', /name "a:" must be printable ASCII/],
    ['{"a\\r\\nb": "x"}', /must be printable ASCII/],
    ['{"ä": "x"}', /name "ä" must be printable ASCII/],
    ['{"good": "x", "a\\tb": "x"}', /must be printable ASCII/],
  ];
  const functions = sampleCalls("refused").filter(({ given }) => "headers" in given);

  it.each(functions)("that cannot be are refused by $name with the rule, and NATS sees nothing", async (call) => {
    for (const [json, rule] of cases) {
      const error = await gateway.errorOf(byPosition({ ...call, given: { ...call.given, headers: "$1" } }), [json]);
      expect(error.code, json).toBe("22023");
      expect(error.message, json).toMatch(rule);
      expect(error.message, json).toContain("headers");
      expect(error.where, json).toContain(call.name);
    }
    expect(await witness.untaken()).toBe(0);
  });
});

describe("a time limit", () => {
  it("beyond what the gateway allows is refused with that limit", async () => {
    const error = await gateway.errorOf("SELECT nats_request_text('refused', 'x', 2147483647)");
    expect(error).toMatchObject({
      code: "22023",
      message:
        "nats_request_*: the argument timeout is 2147483647 ms, and the longest that this gateway allows is 60000 ms",
      hint: expect.stringContaining("--max-call-timeout-ms"),
    });
    expect(await witness.untaken()).toBe(0);
  });
});

describe("a call that is longer than the gateway takes", () => {
  it("is refused with the limit, and the session goes on", async () => {
    await using small = await testGateway({ maxRequestBytes: 65_536, maxResponseBytes: 65_536 });
    expect(await small.value("SELECT nats_put_text('refused_small', 'k', 'v')")).toBe("1");
    const error = await small.errorOf("SELECT nats_put_text('refused_small', 'k', repeat('x', 65536))");
    expect(error).toMatchObject({ code: "54000" });
    expect(`${error.message} ${error.hint}`).toMatch(/--max-request-bytes|maxRequestBytes/);
    expect(error.message).toContain("65536");
    expect(await small.value("SELECT nats_get_text('refused_small', 'k')")).toBe("v");
  });

  it("as is an answer that is longer than it sends", async () => {
    await using small = await testGateway({ maxResponseBytes: 65_536 });
    await small.value("SELECT nats_put_binary('refused_long', 'k', decode(repeat('00', 40000), 'hex'))");
    const error = await small.errorOf("SELECT nats_get_binary('refused_long', 'k')");
    expect(error).toMatchObject({ code: "54000", hint: expect.stringContaining("--max-response-bytes") });
    expect(error.message).toContain("65536");
    expect(await small.value("SELECT length(nats_get_text('refused_long', 'nothing')) IS NULL")).toBe(true);
    await small.value("SELECT nats_put_file('refused_long', 'f', decode(repeat('00', 40000), 'hex'))");
    expect(await small.errorOf("SELECT nats_get_file('refused_long', 'f')")).toMatchObject({ code: "54000" });
    expect(await small.value("SELECT size FROM nats_get_file_info('refused_long', 'f')")).toBe("40000");
  });
});
