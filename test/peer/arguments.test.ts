/**
 * Arguments that break a rule: refused before anything happens, with the value, the rule and the remedy.
 */
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { peerSettingsDefaults } from "../../generated/ts/settings/peer.js";
import type { HawserError } from "../../src/foundation/errors/index.js";
import { Peer, type PeerOptions, type SendOptions } from "../../src/jobs-and-peers/peer/index.js";
import { failure } from "./support/errors.js";
import { sharedPeerWorld } from "./support/shared-world.js";

const world = sharedPeerWorld();

const valid: PeerOptions = {
  name: "a-1",
  topic: "a",
  listen: "127.0.0.1:0",
  databaseUrl: "postgres://127.0.0.1:1/none",
};

/** Wrong argument, and the words that the message must have: argument and value, rule, remedy. */
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
  wrong.map((address) => {
    const shown = JSON.stringify(address);
    const begin = new RegExp(`^${argument}: ${shown.replace(/[[\]/]/g, "\\$&")}`);
    return [`${argument} ${shown}`, address, [begin, /is not an address/, /write host:port/]];
  });

const malformed = ["localhost", "localhost:", ":4100", "localhost:65536", "a b:1", "::1:4100", "http://localhost:1"];

async function refuses(act: () => unknown, [what, , said]: Case<unknown>): Promise<void> {
  const error = await failure("invalid_argument", act, what);
  for (const part of said) expect(error.message, what).toMatch(part);
  expect(error.outcome, what).toBeUndefined();
}

describe("the constructor refuses", () => {
  const of = (option: keyof PeerOptions, cases: Case<unknown>[]) => cases.map((each) => [option, each] as const);
  it("names, topics and addresses that break a rule", async () => {
    for (const [option, wrong] of [
      ...of("name", names("name")),
      ...of("topic", names("topic")),
      ...of("listen", addresses("listen", ["", untyped(7)])),
      ...of("advertise", addresses("advertise", ["", ...malformed])),
    ]) {
      await refuses(() => new Peer({ ...valid, [option]: wrong[1] }), wrong);
    }
  });

  it("no options at all, and a name that is not set", async () => {
    for (const none of [undefined, null, "a-1"]) {
      const { message } = await failure("invalid_argument", () => new Peer(untyped(none)));
      expect(message).toMatch(/^the options of a Peer are (undefined|null|string); give an object with a name$/);
    }
    const { message } = await failure("invalid_argument", () => new Peer({ ...valid, name: untyped(undefined) }));
    expect(message).toBe("name undefined: must be a string. It is missing: set it.");
  });

  it("database URLs that cannot be right, before anything is started", async () => {
    for (const [option, url, said] of [
      [
        "databaseUrl",
        "postgres://u:p@127.0.0.1:abc/db",
        /^databaseUrl has the port "abc"; a port is a number from 1 to/,
      ],
      [
        "sessionUrl",
        "postgres://u@h/db?target_session_attrs=foo",
        /^sessionUrl: target_session_attrs "foo" is unknown; use one of any/,
      ],
      ["sessionUrl", "mysql://u@h/db", /^sessionUrl is not a connection URI; it must begin with postgres:/],
      [
        "databaseUrl",
        "postgres://u@h/db?sslmode=maybe",
        /^databaseUrl: sslmode "maybe" is unknown; use one of disable/,
      ],
      ["databaseUrl", 7, /^databaseUrl is a value of type number and must be a string; give a URL such as postgres:/],
    ] as const) {
      const { message } = await failure("invalid_argument", () => new Peer({ ...valid, [option]: untyped(url) }));
      expect(message).toMatch(said);
    }
  });

  it("a URL of the environment that cannot be right, and names its variable", async () => {
    const { databaseUrl: _, ...unnamed } = valid;
    onTestFinished(() => void vi.unstubAllEnvs());
    vi.stubEnv("HAWSER_DATABASE_URL", "postgres://u:s3cret@127.0.0.1:abc/db");
    const { message } = await failure("invalid_argument", () => new Peer(unnamed));
    expect(message).toBe('HAWSER_DATABASE_URL has the port "abc"; a port is a number from 1 to 65535');
    expect(new Peer(valid).name).toBe("a-1");
    vi.stubEnv("HAWSER_DATABASE_URL", "postgres://127.0.0.1:1/none");
    vi.stubEnv("HAWSER_SESSION_URL", "postgres://h/db?sslmode=maybe");
    expect((await failure("invalid_argument", () => new Peer(unnamed))).message).toMatch(
      /^HAWSER_SESSION_URL: sslmode "maybe" is unknown/,
    );
    expect(new Peer(valid).name).toBe("a-1");
  });

  const settings: [name: string, value: unknown, options?: (given: object) => object][] = [
    ["maxMessageBytes", 0],
    ["maxMessageBytes", 2 ** 30 + 1],
    ["concurrency", Number.NaN],
    ["sendTimeoutMs", 99],
    ["nameWaitMs", 3_600_001],
    ["poolSize", 101],
    ["allowPlaintext", "yes"],
    ...(
      [
        ["creditBytes", 1_023],
        ["compressThresholdBytes", 0],
        ["maxSendQueueMessages", 0],
        ["maxSendQueueBytes", 1.5],
        ["ackTimeoutMs", Number.POSITIVE_INFINITY],
        ["busyAfterMs", "10"],
        ["connectWaitMs", -1],
      ] as const
    ).map(([name, value]) => [`tuning.${name}`, value, () => ({ tuning: { [name]: value } })] as never),
    ["defaults.timeoutMs", 0, () => ({ defaults: { timeoutMs: 0 } })],
    ["defaults.durable", 1, () => ({ defaults: { durable: 1 } })],
    ["defaults.retry.attempts", 0, () => ({ defaults: { retry: { attempts: 0 } } })],
    ["defaults.retry.delayMs", -1, () => ({ defaults: { retry: { delayMs: -1 } } })],
  ];
  it("settings out of their range, but takes null and undefined for left out", async () => {
    for (const [setting, value, options = (given: object) => given] of settings) {
      const shown = JSON.stringify(value) === "null" ? value : JSON.stringify(value);
      const said = [new RegExp(`^${setting} ${shown}: `), /must be/, /\. (Use|Give)/] as const;
      const given = options({ [setting]: value });
      await refuses(() => new Peer({ ...valid, ...given }), [`${setting} ${value}`, value, said]);
    }
    expect(new Peer({ ...valid, stopTimeoutMs: untyped(null) }).name).toBe("a-1");
    const beside = [
      "sessionUrl",
      "advertise",
      "tls",
      "logger",
      "listen",
      "topic",
      "tuning",
      "defaults",
      "stopOnSignals",
    ];
    const known = [...Object.keys(peerSettingsDefaults), ...beside];
    const { name, databaseUrl } = valid;
    const made = new Peer({ ...Object.fromEntries(known.map((each) => [each, undefined])), name, databaseUrl });
    expect([made.name, made.topic]).toEqual(["a-1", "a-1"]);
  });

  const unknown: [given: string, said: RegExp][] = [
    [
      "concurency",
      /^"concurency" is not an option of a Peer; did you mean concurrency\? The options are name, topic, /,
    ],
    ["database_url", /did you mean databaseUrl\? The options are name/],
    ["tlss", /did you mean tls\? The options are name/],
    ["colour", /^"colour" is not an option of a Peer; the options are name, topic, listen, .*concurrency/],
    ["toString", /^"toString" is not an option/],
    ["x".repeat(500), /the options are name/],
    ["transactional", /; transactional is an option of handle, and not under defaults$/],
    ["group", /; group is an option of handle, or of the Peer under defaults$/],
    ["ackTimeoutMs", /; ackTimeoutMs is an option of the Peer under tuning$/],
  ];
  it("options that there are not, also with undefined", async () => {
    for (const [given, said] of unknown) {
      for (const value of [true, undefined]) {
        const { message } = await failure("invalid_argument", () => new Peer({ ...valid, [given]: value }), given);
        expect(message).toMatch(said);
      }
    }
    const misplaced = () => new Peer({ ...valid, tuning: untyped({ concurrency: 1 }) });
    expect((await failure("invalid_argument", misplaced)).message).toMatch(/; concurrency is an option of the Peer$/);
    const transactional = () => new Peer({ ...valid, defaults: untyped({ transactional: true }) });
    expect((await failure("invalid_argument", transactional)).message).toContain(
      '"transactional" is not an option of defaults',
    );
    const signals = () => new Peer({ ...valid, stopOnSignals: untyped("yes") });
    expect((await failure("invalid_argument", signals)).message).toBe("stopOnSignals yes: must be true or false");
  });

  it("options of tls that there are not", async () => {
    const tls = { cert: "c.pem", key: "k.pem", sni: "x" };
    const { message } = await failure("invalid_argument", () => new Peer({ ...valid, tls }));
    expect(message).toBe(
      '"sni" is not an option of tls; the options are cert, key, passphrase, ca, mutual, verify, serverName',
    );
  });

  it("a source topic that is reserved, with internal_topic", () =>
    failure("internal_topic", () => new Peer({ ...valid, topic: "__#internal_channel" })));
});

describe("a running peer refuses", () => {
  /** Arguments of `send`; the default topic is "b". */
  type Send = { readonly topic?: string; readonly payload?: string | Uint8Array } & SendOptions;
  const sends: Case<Send>[] = [
    ...names("topic").map(([what, topic, said]): Case<Send> => [what, { topic }, said]),
    ["an empty payload", { payload: "" }, [/payload/, /0 bytes/, /at least one byte/]],
    ["an empty payload of bytes", { payload: new Uint8Array() }, [/payload/, /0 bytes/, /at least one/]],
    ["no payload", { payload: untyped(null) }, [/payload/, /null/, /a string, a Uint8Array, or an object/]],
    ["a payload that is a map", { payload: untyped(new Map()) }, [/payload/, /Map/, /a string, a Uint8Array, or an/]],
    ["a format without a schema", { format: "json" }, [/format/, /json/, /applies to Protobuf only; leave it out/]],
    [
      "an unknown delivery",
      { delivery: untyped("exactly-once") },
      [/delivery/, /exactly-once/, /"at-least-once" or "at-most-once"/],
    ],
    ["a header without a name", { headers: { "": "1" } }, [/header name ""/, /1 to 255 bytes/, /Use 1 to 255/]],
    [
      "a header's value with a line break",
      { headers: { a: "1\r\n2" } },
      [/header a "1\\r\\n2"/, /control characters/, /Use only/],
    ],
    [
      "a header's value that is too long",
      { headers: { a: "x".repeat(8_193) } },
      [/header a "xxx.*8193 bytes/, /at most 8192|0 to 8192/, /Use/],
    ],
    [
      "a header's value that is a number",
      { headers: { a: untyped(7) } },
      [/headers/, /must be an object of strings/, /or a list of/],
    ],
    [
      "257 headers",
      { headers: Array.from({ length: 257 }, (_, n) => [`h${n}`, ""] as const) },
      [/headers 257/, /at most 256/, /256/],
    ],
  ];

  it("what breaks a rule in send, sendAll and a reply, and goes on sending", async () => {
    const a = await world.started("a-1");
    const errors: Promise<unknown>[] = [];
    const b = await world.started("b-1", {}, (message) => {
      errors.push(failure("invalid_argument", message.reply("")));
      errors.push(failure("invalid_argument", message.reply("x", { headers: { "": "" } })));
    });
    for (const wrong of sends) {
      const { topic = "b", payload = "x", ...options } = wrong[1];
      await refuses(() => a.send(topic, payload, options), wrong);
    }
    await failure("invalid_argument", a.send("b", untyped(undefined)));
    for (const to of [untyped(null), untyped({}), untyped(7)])
      await failure("invalid_argument", a.send(to, untyped("x")));
    await failure("invalid_argument", a.sendAll("b", ""));
    await failure("invalid_argument", a.sendAll("a:b", "x"));
    expect((await a.send("b", "fine")).outcome).toBe("delivered");
    expect(b.texts).toEqual(["fine"]);
    await Promise.all(errors);
    expect(errors).toHaveLength(2);
  });

  it("options that there are not, of sends, replies and stop, with those that there are", async () => {
    const a = await world.started("a-1");
    const replies: Promise<HawserError>[] = [];
    const b = await world.started("b-1", {}, (message) => {
      replies.push(failure("invalid_argument", message.reply("x", untyped({ timeout: 1 }))));
    });
    const mistyped = untyped({ delivry: "at-most-once" });
    for (const send of [a.send("b", "x", mistyped), a.sendAll("b", "x", mistyped)]) {
      const { message } = await failure("invalid_argument", send);
      expect(message).toBe(
        '"delivry" is not an option of a send; did you mean delivery? The options are delivery, headers, signal, key, messageId, ttlMs, format',
      );
    }
    const text = await failure("invalid_argument", a.send("b", "x", untyped("at-most-once")));
    expect(text.message).toBe(
      "the options of a send must be an object; they are delivery, headers, signal, key, messageId, ttlMs, format",
    );
    await a.send("b", "fine", untyped(null));
    expect((await replies[0])?.message).toBe(
      '"timeout" is not an option of a send; the options are delivery, headers, signal, key, messageId, ttlMs, format',
    );
    expect(b.texts).toEqual(["fine"]);
    const stop = await failure("invalid_argument", a.stop(untyped({ timeout: 5 })));
    expect(stop.message).toBe('"timeout" is not an option of stop; did you mean timeoutMs? The options are timeoutMs');
    expect((await a.send("b", "still running")).outcome).toBe("delivered");
  });

  it("topics that break a rule or are reserved, wherever a topic is named", async () => {
    const a = await world.started("a-1");
    for (const call of [
      () => a.recordTopic("x:y"),
      () => a.respond("", () => ""),
      () => a.messages("x:y"),
      () => a.listenersOf("x:y", { refresh: true }),
      () => a.listenersOf(""),
    ]) {
      await failure("invalid_argument", call);
    }
    for (const send of [a.send("a", "x"), a.sendAll("a", "x"), a.request("a", "x")]) {
      expect((await failure("self_topic", send)).message).toContain('"a"');
    }
    for (const peer of [a, world.peer("b-1")]) {
      for (const topic of ["__#internal_channel", "__#other"]) {
        const { message } = await failure("internal_topic", peer.recordTopic(topic));
        expect(message).toContain(`"${topic}"`);
        await failure("internal_topic", () => peer.messages(topic));
        // To ask for one is to ask for a topic that nobody serves.
        expect((await peer.listenersOf(topic, { refresh: true })).length > 0).toBe(false);
        expect(await peer.listenersOf(topic)).toEqual([]);
      }
    }
    await failure("no_listener", a.send("__#other", "x"));
    await failure("no_listener", a.sendAll("__#other", "x"));
  });
});
