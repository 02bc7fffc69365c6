/**
 * Arguments that break a rule: refused before anything happens, with the value, the rule and the remedy.
 */
import { describe, expect, it } from "vitest";
import { peerSettingsDefaults } from "../../generated/ts/settings/peer.js";
import { Peer, type PeerOptions } from "../../src/peer/index.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";
import type { TestPeer } from "./support/world.js";

const world = sharedPeerWorld();

const valid: PeerOptions = {
  name: "a-1",
  topic: "a",
  listen: "127.0.0.1:0",
  databaseUrl: "postgres://127.0.0.1:1/none",
};

/** What is wrong, and what the message must say: which argument and value, the rule, the remedy. */
type Case<Wrong> = readonly [what: string, wrong: Wrong, said: readonly [RegExp, RegExp, RegExp]];

/** A value that the types forbid, as a caller without types may give it. */
const untyped = (value: unknown): never => value as never;

const names = (argument: string): Case<string>[] => [
  [`an empty ${argument}`, "", [new RegExp(`^${argument} ""`), /must be 1 to 255 bytes/, /Use 1 to 255 bytes/]],
  [`a ${argument} with a colon`, "a:b", [new RegExp(`^${argument} "a:b"`), /must not contain ':'/, /Use only/]],
  [`a ${argument} with a line break`, "a\nb", [new RegExp(`^${argument} "a\\\\nb"`), /control characters/, /Use only/]],
  [`a ${argument} with NUL`, "a\0b", [new RegExp(`^${argument}`), /without NUL/, /Remove NUL/]],
  [
    `a ${argument} of 256 bytes`,
    "é".repeat(128),
    [new RegExp(`^${argument} "éé.*256 bytes`), /1 to 255/, /Use 1 to 255/],
  ],
  [`a ${argument} with half a surrogate pair`, "a\ud800", [new RegExp(`^${argument}`), /well-formed/, /Remove/]],
  [`a ${argument} that is no string`, untyped(7), [new RegExp(`^${argument} 7`), /must be a string/, /Give a string/]],
];

const addresses = (argument: string, wrong: readonly string[]): Case<string>[] =>
  wrong.map((address) => [
    `${argument} ${JSON.stringify(address)}`,
    address,
    [
      new RegExp(`^${argument}: ${JSON.stringify(address).replace(/[[\]/]/g, "\\$&")}`),
      /is no address/,
      /write host:port/,
    ],
  ]);

const malformed = ["localhost", "localhost:", ":4100", "localhost:65536", "a b:1", "::1:4100", "http://localhost:1"];

function check(error: Error, said: readonly RegExp[]): void {
  for (const part of said) expect(error.message).toMatch(part);
}

describe("the constructor refuses", () => {
  const texts: Case<Partial<PeerOptions>>[] = [
    ...names("name").map(([what, name, said]): Case<Partial<PeerOptions>> => [what, { name }, said]),
    ...names("topic").map(([what, topic, said]): Case<Partial<PeerOptions>> => [what, { topic }, said]),
    ...addresses("listen", ["", untyped(7)]).map(
      ([what, listen, said]): Case<Partial<PeerOptions>> => [what, { listen }, said],
    ),
    ...addresses("advertise", ["", ...malformed]).map(
      ([what, advertise, said]): Case<Partial<PeerOptions>> => [what, { advertise }, said],
    ),
  ];
  const settings: [keyof PeerOptions, unknown][] = [
    ["creditBytes", 1_023],
    ["maxMessageBytes", 0],
    ["maxMessageBytes", 2 ** 30 + 1],
    ["compressThresholdBytes", 0],
    ["maxSendQueueMessages", 0],
    ["maxSendQueueBytes", 1.5],
    ["concurrency", Number.NaN],
    ["handlerTimeoutMs", 0],
    ["maxAttempts", 0],
    ["retryDelayMs", -1],
    ["ackTimeoutMs", Number.POSITIVE_INFINITY],
    ["busyAfterMs", "10"],
    ["sendTimeoutMs", 99],
    ["connectWaitMs", -1],
    ["nameWaitMs", 3_600_001],
    ["stopDeadlineMs", null],
    ["poolSize", 101],
    ["allowPlaintext", "yes"],
    ["durable", 1],
  ];
  it.each(texts)("%s", async (_, wrong, said) => {
    check(await failure("invalid_argument", () => new Peer({ ...valid, ...wrong })), said);
  });
  // A setting that is null has its default, as one that is left out.
  it.each(settings.filter(([, value]) => value !== null))("%s %s", async (setting, value) => {
    const error = await failure("invalid_argument", () => new Peer({ ...valid, [setting]: value }));
    check(error, [
      new RegExp(`^${setting} ${JSON.stringify(value) === "null" ? value : JSON.stringify(value)}: `),
      /must be/,
      /; (Use|Give)/,
    ]);
  });
  const unknown: [given: string, said: RegExp][] = [
    ["transactionl", /^"transactionl" is no option of a Peer; did you mean transactional\?$/],
    ["MaxAttempt", /did you mean maxAttempts\?$/],
    ["database_url", /did you mean databaseUrl\?$/],
    ["tlss", /did you mean tls\?$/],
    ["colour", /^"colour" is no option of a Peer; the options are name, topic, listen, .*concurrency, .*durable/],
    ["toString", /^"toString" is no option/],
    ["x".repeat(500), /the options are name/],
  ];
  it.each(unknown)("the option %s, which there is not", async (given, said) => {
    for (const value of [true, undefined]) {
      const error = await failure("invalid_argument", () => new Peer({ ...valid, [given]: value }));
      expect(error.message).toMatch(said);
    }
  });
  it("no option that there is and that is undefined", () => {
    const names = [...Object.keys(peerSettingsDefaults), "sessionUrl", "advertise", "tls", "logger"];
    const left = Object.fromEntries(names.map((name) => [name, undefined]));
    expect(new Peer({ ...left, ...valid }).name).toBe("a-1");
  });
  it("a source topic that is reserved, with internal_topic", async () => {
    await failure("internal_topic", () => new Peer({ ...valid, topic: "__#internal_channel" }));
  });
});

describe("a running peer refuses", () => {
  const sends: Case<(peer: TestPeer) => Promise<unknown>>[] = [
    ...names("topic").map(
      ([what, topic, said]): Case<(peer: TestPeer) => Promise<unknown>> => [
        what,
        (peer) => peer.sendTo(topic, "x"),
        said,
      ],
    ),
    ["an empty payload", (peer) => peer.sendTo("b", ""), [/payload/, /0 bytes/, /at least one byte/]],
    ["an empty payload of bytes", (peer) => peer.sendTo("b", new Uint8Array()), [/payload/, /0 bytes/, /at least one/]],
    ["no payload", (peer) => peer.sendTo("b", untyped(undefined)), [/payload/, /undefined/, /Uint8Array or a string/]],
    [
      "a payload that is a list",
      (peer) => peer.sendTo("b", untyped([1])),
      [/payload/, /object/, /Uint8Array or a string/],
    ],
    [
      "an unknown delivery",
      (peer) => peer.sendTo("b", "x", { delivery: untyped("exactly-once") }),
      [/delivery/, /exactly-once/, /"at-least-once" or "at-most-once"/],
    ],
    [
      "a header without a name",
      (peer) => peer.sendTo("b", "x", { headers: { "": "1" } }),
      [/header name ""/, /1 to 255 bytes/, /Use 1 to 255/],
    ],
    [
      "a header's value with a line break",
      (peer) => peer.sendTo("b", "x", { headers: { a: "1\r\n2" } }),
      [/header a "1\\r\\n2"/, /control characters/, /Use only/],
    ],
    [
      "a header's value that is too long",
      (peer) => peer.sendTo("b", "x", { headers: { a: "x".repeat(8_193) } }),
      [/header a "xxx.*8193 bytes/, /at most 8192|0 to 8192/, /Use/],
    ],
    [
      "a header's value that is a number",
      (peer) => peer.sendTo("b", "x", { headers: { a: untyped(7) } }),
      [/header a 7/, /must be a string/, /Give a string/],
    ],
    [
      "257 headers",
      (peer) => peer.sendTo("b", "x", { headers: Array.from({ length: 257 }, (_, n) => [`h${n}`, ""] as const) }),
      [/headers 257/, /at most 256/, /256/],
    ],
  ];
  it.each(sends)("%s", async (_, send, said) => {
    const [a, b] = await world.running("a-1", "b-1");
    const error = await failure("invalid_argument", send(a));
    check(error, said);
    expect(error.outcome).toBeUndefined();
    // Nothing was sent, and sending goes on.
    expect((await a.sendTo("b", "fine")).outcome).toBe("delivered");
    expect(b.texts).toEqual(["fine"]);
  });

  it("the same in sendAll and in a reply", async () => {
    const a = await world.started("a-1");
    const errors: Promise<unknown>[] = [];
    await world.started("b-1", {}, (message) => {
      errors.push(failure("invalid_argument", message.reply("")));
      errors.push(failure("invalid_argument", message.reply("x", { headers: { "": "" } })));
    });
    await failure("invalid_argument", a.sendAll("b", ""));
    await failure("invalid_argument", a.sendAll("a:b", "x"));
    await a.sendTo("b", "x");
    await Promise.all(errors);
    expect(errors).toHaveLength(2);
  });

  it("topics that break the rule, wherever a topic is named", async () => {
    const a = await world.started("a-1");
    for (const call of [
      () => a.subscribe("x:y"),
      () => a.unsubscribe(""),
      () => a.refreshAddressTopic("x:y"),
      () => a.listAddresses(""),
    ]) {
      await failure("invalid_argument", call);
    }
  });

  it("reserved topics with internal_topic, and its own source topic with self_topic", async () => {
    const a = await world.started("a-1");
    for (const topic of ["__#internal_channel", "__#other"]) {
      const error = await failure("internal_topic", a.subscribe(topic));
      expect(error.message).toContain(`"${topic}"`);
      await failure("internal_topic", a.unsubscribe(topic));
    }
    const error = await failure("self_topic", a.subscribe("a"));
    expect(error.message).toContain('"a"');
    await failure("self_topic", a.unsubscribe("a"));
  });
});
