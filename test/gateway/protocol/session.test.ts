import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { errorTable } from "../../../src/foundation/errors/index.js";
import type { Answer } from "../../../src/nats/gateway/protocol/index.js";
import {
  cancelRequest,
  errorFields,
  flush,
  gssRequest,
  header,
  message,
  query,
  rowValue,
  saslInitial,
  saslResponse,
  sslRequest,
  startup,
  sync,
  terminate,
} from "./frontend-messages.js";
import { database, user } from "./test-server.js";
import { certificate, clientFirst, goodStartup, TestSession, testRules } from "./test-session.js";

/** A message that chooses SCRAM-SHA-256 and goes on like this. */
const sasl = (rest: string): Buffer => message("p", Buffer.from(`SCRAM-SHA-256${rest}`));

const wrongProof = saslResponse(
  `c=biws,r=${clientFirst.slice("n,,n=,r=".length)}3rfcNHYJY1ZVvWVs7j,p=${"A".repeat(43)}=`,
);

const violation = { sqlstate: "08P01" };
const boundFirst = clientFirst.replace("n,", "p=tls-server-end-point,");

/** A session that TLS has been established for. */
function securedSession(): TestSession {
  const test = new TestSession(testRules({ tls: true }));
  test.send(sslRequest);
  test.forget();
  test.session.secured(certificate);
  return test;
}

/** The code and message of the last error that was written. */
function lastError(test: TestSession): Record<string, string> {
  return errorFields(test.messages.filter(({ type }) => type === "E").at(-1)!);
}

describe("the beginning of a session", () => {
  it("is refusal of GSSAPI and TLS, SCRAM, and the parameters that leave the caller's settings alone", () => {
    const test = new TestSession();
    test.encryptionAnswers = 2;
    test.send(gssRequest);
    test.send(sslRequest);
    test.send(startup({ user, database, application_name: "orders", options: "-c x=y" }));
    test.send(saslInitial(clientFirst));
    test.send(test.proof());
    expect(test.types).toBe("NNRRRRSSSSSZ");
    expect(test.isAdmitted).toBe(true);
    const parameters = test.messages
      .filter(({ type }) => type === "S")
      .map(({ body }) => body.toString().split("\0")[0]);
    expect(parameters.sort()).toEqual([
      "client_encoding",
      "integer_datetimes",
      "server_encoding",
      "server_version",
      "standard_conforming_strings",
    ]);
  });

  it.each([
    ["a newer minor version", startup({ user, database }, 0x00030002), []],
    ["an option of the protocol", startup({ user, database, "_pq_.greased": "1" }), ["_pq_.greased"]],
    ["both", startup({ user, database, "_pq_.a": "", "_pq_.b": "x" }, 0x0003270f), ["_pq_.a", "_pq_.b"]],
  ])("is 3.0 without options for a client that asks for %s", (_what, packet, options) => {
    const test = new TestSession();
    test.send(packet);
    expect(test.types).toBe("vR");
    const { body } = test.messages[0]!;
    expect(body.readInt32BE(0)).toBe(0x00030000);
    expect(body.readInt32BE(4)).toBe(options.length);
    expect(body.toString("utf8", 8)).toBe(options.map((name) => `${name}\0`).join(""));
  });

  it("is nothing for a request to cancel", () => {
    const test = new TestSession();
    test.send(cancelRequest);
    expect([test.over, test.output.length, test.refusals]).toEqual(["closed", 0, []]);
  });

  it("goes on in TLS if it is offered", () => {
    const test = new TestSession(testRules({ tls: true }));
    test.send(sslRequest);
    expect([test.output.toString(), test.tlsBegun]).toEqual(["S", true]);
    test.forget();
    test.session.secured(certificate);
    test.logIn();
  });

  it("offers to bind the login to the certificate in TLS, and nowhere else", () => {
    const mechanisms = (test: TestSession) => test.messages[0]!.body.toString("utf8", 4);
    const plain = new TestSession(testRules());
    plain.send(goodStartup);
    expect(mechanisms(plain)).toBe("SCRAM-SHA-256\0\0");
    const secure = securedSession();
    secure.send(goodStartup);
    expect(mechanisms(secure)).toBe("SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0");
  });

  it("is let in with the hash of the certificate, and refused with that of another one", () => {
    const bound = (shown: Buffer, secret?: string) => {
      const test = securedSession();
      test.send(goodStartup);
      test.send(saslInitial(boundFirst, "SCRAM-SHA-256-PLUS"));
      test.send(test.proof(secret, boundFirst, createHash("sha256").update(shown).digest()));
      return test;
    };
    expect(bound(certificate).isAdmitted).toBe(true);
    const relayed = bound(Buffer.from("a relay's certificate"));
    expect([relayed.isAdmitted, lastError(relayed)]).toMatchObject([
      false,
      { C: "08004", M: expect.stringContaining("another certificate"), H: expect.stringContaining("end TLS") },
    ]);
    expect(lastError(bound(certificate, "wrong"))).toMatchObject({ C: "28P01" });
  });

  it.each([
    ["that says binding was not offered", `y${clientFirst.slice(1)}`, "SCRAM-SHA-256", /has changed the offer/],
    ["that binds otherwise", boundFirst.replace("server-end-point", "exporter"), "SCRAM-SHA-256-PLUS", /end-point/],
    ["that does not bind and said it would", clientFirst, "SCRAM-SHA-256-PLUS", /does not bind/],
    ["that binds and said it would not", boundFirst, "SCRAM-SHA-256", /chose a mechanism without it/],
  ])("is refused in TLS with a first message %s", (_what, first, mechanism, reason) => {
    const test = securedSession();
    test.send(goodStartup);
    test.send(saslInitial(first, mechanism));
    expect(lastError(test)).toMatchObject({ C: "08P01", M: expect.stringMatching(reason) });
  });

  it("takes nothing that was sent ahead of TLS", () => {
    const before = new TestSession(testRules({ tls: true }));
    before.send(sslRequest, goodStartup);
    expect([before.tlsBegun, before.over, before.refusals]).toMatchObject([false, "ended", [violation]]);
    const during = new TestSession(testRules({ tls: true }));
    during.send(sslRequest);
    during.send(goodStartup);
    expect([during.output.toString(), during.over]).toEqual(["S", "closed"]);
  });

  it.each([
    ["TLS where it is required", "28000", /only TLS/, [goodStartup], testRules({ tls: true })],
    ["version 3 of the protocol", "0A000", /version 2\.0/, [startup({ user }, 0x00020000)]],
    ["a user", "28000", /no user/, [startup({ database })]],
    ["one request for TLS", "08P01", /TLS was requested twice/, [sslRequest, sslRequest]],
    ["one request for GSSAPI", "08P01", /GSSAPI encryption was requested twice/, [gssRequest, gssRequest]],
    ["a packet with a version", "08P01", /2 bytes arrived before/, [Buffer.from([0, 0, 0, 6, 0, 3])]],
    ["a packet that is short enough", "08P01", /4 to 1000 are allowed/, [startup({ user: "x".repeat(1000) })]],
    ["a packet of positive length", "08P01", /4 to 1000 are allowed/, [Buffer.from([0xff, 0xff, 0xff, 0xff])]],
    ["parameters with an end", "08P01", /are not terminated/, [Buffer.from("\0\0\0\x0c\0\x03\0\0user")]],
    ["parameters with values", "08P01", /has no value/, [Buffer.from("\0\0\0\x0f\0\x03\0\0user\0ab")]],
    ["nothing behind the parameters", "08P01", /after its parameters/, [Buffer.from("\0\0\0\x0a\0\x03\0\0\0\0")]],
    ["nothing behind a request", "08P01", /extra bytes/, [Buffer.from("\0\0\0\x09\x04\xd2\x16\x2f\0", "latin1")]],
    ["a proof", "08P01", /type 81 arrived instead/, [goodStartup, query("SELECT 1")]],
    [
      "TLS to bind the channel",
      "08P01",
      /another SASL mechanism/,
      [goodStartup, saslInitial(boundFirst, "SCRAM-SHA-256-PLUS")],
    ],
    ["a mechanism it knows", "08P01", /another SASL mechanism/, [goodStartup, saslInitial(clientFirst, "PLAIN")]],
    ["SASL of the length it says", "08P01", /wrong length/, [goodStartup, sasl("\0\0\0\0\x7fn,,n=,r=abc")]],
    ["a whole SASL message", "08P01", /truncated/, [goodStartup, sasl("\0")]],
    ["SCRAM in it", "08P01", /malformed: it has no GS2 header/, [goodStartup, saslInitial("")]],
    ["a SASL message that is short enough", "08P01", /0 to 1000 are allowed/, [goodStartup, header("p", 5000)]],
    ["the password", "28P01", /failed for user "hawser"/, [goodStartup, saslInitial(clientFirst), wrongProof]],
  ])("must have %s", (_what, sqlstate, reason, packets, rules = testRules()) => {
    const test = new TestSession(rules);
    test.encryptionAnswers = packets.filter((packet) => packet === sslRequest || packet === gssRequest).length;
    for (const packet of packets) test.send(packet);
    expect(test.over).toBe("ended");
    expect(lastError(test)).toMatchObject({ S: "FATAL", V: "FATAL", C: sqlstate, M: expect.stringMatching(reason) });
    expect([test.isAdmitted, test.refusals]).toMatchObject([false, [{ sqlstate }]]);
  });
});

describe("input", () => {
  const conversation = (): Buffer[] => {
    const test = new TestSession();
    test.send(goodStartup);
    test.send(saslInitial(clientFirst));
    return [
      gssRequest,
      sslRequest,
      goodStartup,
      saslInitial(clientFirst),
      test.proof(),
      query("first"),
      query(""),
      sync,
      flush,
      query("x".repeat(2001)),
      query("last"),
      terminate,
    ];
  };
  const run = (...chunks: readonly Uint8Array[]): TestSession => {
    const test = new TestSession();
    test.encryptionAnswers = 2;
    for (const chunk of chunks) test.send(chunk);
    return test;
  };

  it("means the same however it is split: at every byte, and into single bytes", () => {
    const all = Buffer.concat(conversation());
    const whole = run(...conversation());
    expect(whole.types).toBe("NNRRRRSSSSSZTDCZTDCZZEZTDCZ");
    expect(whole.over).toBe("ended");
    expect(run(all).output.equals(whole.output)).toBe(true);
    for (let at = 1; at < all.length; at++) {
      const split = run(all.subarray(0, at), all.subarray(at));
      expect(split.output.equals(whole.output), `split at ${at}`).toBe(true);
      expect(split.over).toBe("ended");
    }
    const single = run(...Array.from(all, (_byte, at) => all.subarray(at, at + 1)));
    expect(single.output.equals(whole.output)).toBe(true);
  });
});

describe("a call", () => {
  it("is answered in one write, in the one column r of type text", () => {
    const test = new TestSession().logIn();
    test.send(query("ab"));
    expect(test.types).toBe("TDCZ");
    const [description, row, complete, ready] = test.messages;
    expect(description!.body.toString("latin1")).toBe("\0\x01r\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
    expect(rowValue(row!)?.toString()).toBe("6162");
    expect(complete!.body.toString()).toBe("SELECT 1\0");
    expect(ready!.body.toString()).toBe("I");
  });

  it("waits until the one before it is answered, and until the client has room for that answer", async () => {
    const pending: ((answer: Answer) => void)[] = [];
    const test = new TestSession(testRules(), () => new Promise<Answer>((resolve) => pending.push(resolve))).logIn();
    test.send(query("1"), query("2"), query("3"));
    expect(test.queries.map(String)).toEqual(["1"]);
    pending[0]!({ kind: "row", value: "one" });
    await Promise.resolve();
    expect(test.queries.map(String)).toEqual(["1", "2"]);
    test.hasRoom = false;
    pending[1]!({ kind: "row", value: "two" });
    await Promise.resolve();
    expect(test.types).toBe("TDCZTDCZ");
    expect(test.queries.map(String)).toEqual(["1", "2"]);
    test.session.drained();
    expect(test.queries.map(String)).toEqual(["1", "2", "3"]);
  });

  it("lets little be read ahead while it is running", async () => {
    const pending: ((answer: Answer) => void)[] = [];
    const test = new TestSession(testRules(), () => new Promise<Answer>((resolve) => pending.push(resolve))).logIn();
    test.send(query("1"), ...Array.from({ length: 60 }, () => query("x".repeat(1000))));
    expect(test.reading).toBe(true);
    test.send(...Array.from({ length: 10 }, () => query("x".repeat(1000))));
    expect(test.reading).toBe(false);
    for (let i = 0; i < 71; i++) {
      pending[i]!({ kind: "row", value: null });
      await Promise.resolve();
    }
    expect(test.queries).toHaveLength(71);
    expect(test.reading).toBe(true);
  });

  it("that is too large is skipped, answered, and the next one is taken", () => {
    const test = new TestSession(testRules({ maxRequestBytes: 10 })).logIn();
    const large = query("x".repeat(100_000));
    for (let at = 0; at < large.length; at += 1000) test.send(large.subarray(at, at + 1000));
    expect(test.types).toBe("EZ");
    expect(lastError(test)).toMatchObject({ S: "ERROR", C: errorTable.gateway_limit.sqlstate });
    expect(lastError(test)["M"]).toMatch(/100000 bytes.*the limit is 10/);
    test.send(query("0123456789"));
    expect(test.queries.map(String)).toEqual(["0123456789"]);
  });

  it("uses no memory for a declared length before its data arrives", () => {
    const test = new TestSession(testRules({ maxRequestBytes: 1024 ** 3 })).logIn();
    const before = process.memoryUsage().arrayBuffers;
    test.send(header("Q", 900 * 1024 * 1024), Buffer.alloc(1000, "x"));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1024 * 1024);
  });

  it.each([
    ["is not of a known kind", header("P", 100)],
    ["has a type that is no letter", header("\u00ff", 100)],
    ["is a Parse message", message("P", Buffer.from("\0SELECT 1\0\0\0"))],
    ["is a function call", header("F", 8)],
    ["is copy data", header("d", 8)],
    ["has a negative length", header("Q", -1)],
    ["has the length 0", header("Q", 0)],
    ["has no room for a NUL", header("Q", 4)],
    ["has the greatest length", header("Q", 0x7fffffff)],
    ["ends in no NUL", message("Q", Buffer.from("SELECT 1"))],
    ["has a NUL in the middle", query("SELECT\0 1")],
    ["ends in two NULs", query("SELECT 1\0")],
    ["is a Sync with a body", message("S", Buffer.from("x"))],
    ["is a Terminate of negative length", header("X", -5)],
  ])("ends the session where it %s", (_what, bytes) => {
    const test = new TestSession().logIn();
    test.send(bytes);
    expect(test.over).toBe("ended");
    expect(test.types).toBe("EZA");
    expect(lastError(test)).toMatchObject({ S: "FATAL", C: "08P01", H: errorTable.gateway_protocol.remedy });
    expect([test.queries, test.refusals]).toMatchObject([[], [violation]]);
  });

  it("that was running when the client went has no effect any more", async () => {
    let settle = (_answer: Answer): void => {};
    const test = new TestSession(testRules(), () => new Promise((resolve) => (settle = resolve))).logIn();
    test.send(query("x"));
    expect(test.session.isAnswering).toBe(true);
    test.session.closed();
    test.over = "closed";
    settle({ kind: "row", value: "late" });
    await Promise.resolve();
    expect(test.output).toHaveLength(0);
  });

  it("may send its own session away, and is answered first", () => {
    const reason = { kind: "error", sqlstate: "57P01", message: "bye" } as const;
    const test: TestSession = new TestSession(testRules(), () => {
      test.session.endAfterCall(reason);
      return { kind: "row", value: "done" };
    }).logIn();
    test.send(query("x"), query("y"));
    expect(test.types).toBe("TDCZEZA");
    expect(lastError(test)).toMatchObject({ S: "FATAL", C: "57P01", M: "bye" });
    expect([test.over, test.queries.length]).toEqual(["ended", 1]);
  });

  it("whose answer the client is slow to read is not cut off by a farewell", () => {
    const test = new TestSession().logIn();
    test.hasRoom = false;
    test.send(query("x"));
    test.session.endAfterCall({ kind: "error", sqlstate: "57P01", message: "bye" });
    expect([test.over, test.types]).toEqual([undefined, "TDCZ"]);
    test.session.endIfIdle();
    expect([test.over, test.types]).toEqual([undefined, "TDCZ"]);
    test.session.drained();
    test.session.endIfIdle();
    expect([test.over, test.types]).toEqual(["ended", "TDCZEZA"]);
  });

  it("of a session that is to leave is not carried out, and has the reason as its answer", () => {
    const test = new TestSession().logIn();
    test.session.endAfterCall({ kind: "error", sqlstate: "57P01", message: "bye" });
    expect([test.over, test.types]).toEqual([undefined, ""]);
    test.send(query("x"));
    expect([test.over, lastError(test)["C"], test.types]).toEqual(["ended", "57P01", "EZA"]);
  });
});

describe("an error", () => {
  it("has fields of bounded length", () => {
    const long = "ü".repeat(100_000);
    const error = { kind: "error", sqlstate: "NA001", message: long, detail: long, hint: "" } as const;
    const test = new TestSession(testRules(), () => error).logIn();
    test.send(query("x"));
    const fields = lastError(test);
    expect(fields["M"]).toBe(`${"ü".repeat(8000)} …`);
    expect(fields["D"]).toBe(fields["M"]);
    expect(fields).not.toHaveProperty("H");
  });
});
