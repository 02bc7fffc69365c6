import type { Socket } from "node:net";
import type { Msg } from "@nats-io/transport-node";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { readHeaders } from "../../../src/nats/connections/headers.js";
import { CertificateAuthority } from "../../support/certificate-authority.js";
import { startNatsServer } from "../../support/nats-server.js";
import { noTimersAbove } from "../../support/timers.js";
import { bytesOf, failureOf, hang, type Operations, operationsOf, timeoutMs } from "./operations-of.js";

const noHeaders = "no_header_support: true";

/** The messages that a stock client receives, until there are `count` of them. */
function receive(
  stock: { subscribe(subject: string, options: { max: number }): AsyncIterable<Msg> },
  subject: string,
  count: number,
): Promise<Msg[]> {
  const subscription = stock.subscribe(subject, { max: count });
  return (async () => {
    const messages: Msg[] = [];
    for await (const message of subscription) messages.push(message);
    return messages;
  })();
}

/** On the server of the run. */
let used: Operations;
beforeAll(async () => {
  used = await operationsOf(inject("natsUrl"));
});
afterAll(() => used?.[Symbol.asyncDispose]());

describe("publish", () => {
  it("has written the bytes when it returns without a promise, and they arrive as they were", async () => {
    const { operations, stock } = used;
    const received = receive(stock, "operations.publish.exact", 5);
    await stock.flush();
    const text = new TextEncoder().encode("\u0000 a ä 漢 \u{1f6f3}\r\n PUB x 1\r\n");
    const payloads = [new Uint8Array(0), Uint8Array.of(0), text, bytesOf(1_000), bytesOf(1_000_000)];
    for (const payload of payloads) {
      const written = operations.publish("operations.publish.exact", payload, { timeoutMs });
      if (payload.length <= 1_000) expect(written).toBeUndefined();
      else await written;
    }
    const data = (await received).map((message) => Buffer.from(message.data));
    expect(data.map((each, index) => each.equals(payloads[index]!))).toEqual(payloads.map(() => true));
  });

  it("leaves nothing queued in the library, nor in the process", async () => {
    const { socket } = (used.connection as unknown as { protocol: { transport: { socket: Socket } } }).protocol
      .transport;
    const before = socket.bytesWritten;
    const frame = "PUB operations.publish.now 1000\r\n".length + 1_000 + 2;
    expect(used.operations.publish("operations.publish.now", bytesOf(1_000), { timeoutMs })).toBeUndefined();
    expect(socket.bytesWritten - before).toBe(frame);
    expect(socket.writableLength).toBe(0);
  });

  it("resolves over TLS too, when the socket has taken the bytes", async () => {
    const authority = new CertificateAuthority();
    const { cert, key } = authority.issue(["127.0.0.1", "localhost"]);
    await using server = await startNatsServer({
      config: 'tls { cert_file: "$DIR/cert.pem", key_file: "$DIR/key.pem" }',
      files: { "cert.pem": cert, "key.pem": key },
    });
    await using used = await operationsOf(server.url, { tls: { ca: authority.certificate } });
    const received = receive(used.stock, "tls", 3);
    await used.stock.flush();
    for (const length of [0, 10, 1_000_000]) await used.operations.publish("tls", bytesOf(length), { timeoutMs });
    await used.operations.publishBatch("tls", [], { timeoutMs });
    expect((await received).map(({ data }) => data.length)).toEqual([0, 10, 1_000_000]);
  });

  it("lets the payload be reused as soon as it returns", async () => {
    const received = receive(used.stock, "operations.publish.reused", 1);
    await used.stock.flush();
    const payload = bytesOf(900_000);
    const written = used.operations.publish("operations.publish.reused", payload, { timeoutMs });
    payload.fill(0);
    await written;
    const [message] = await received;
    expect(Buffer.from(message!.data).equals(bytesOf(900_000))).toBe(true);
  });

  it("refuses a message beyond max_payload, counting its headers, and the connection lives on", async () => {
    await using server = await startNatsServer({ config: "max_payload: 1000" });
    await using used = await operationsOf(server.url);
    const { operations, stock } = used;
    const received = receive(stock, "limited", 2);
    await stock.flush();
    const headers = readHeaders({ a: "b" });
    // "NATS/1.0", "a: b" and an empty line, each with CR and LF.
    const headerBytes = 8 + 2 + 4 + 2 + 2;
    const plain = await failureOf("payload_too_large", () =>
      operations.publish("limited", bytesOf(1_001), { timeoutMs }),
    );
    expect(plain.message).toContain("1001 bytes");
    expect(plain.message).toContain("1000 (max_payload)");
    const withHeaders = bytesOf(1_001 - headerBytes);
    await failureOf("payload_too_large", () => operations.publish("limited", withHeaders, { headers, timeoutMs }));
    await operations.publish("limited", bytesOf(1_000), { timeoutMs });
    await operations.publish("limited", bytesOf(1_000 - headerBytes), { headers, timeoutMs });
    expect((await received).map(({ data }) => data.length)).toEqual([1_000, 1_000 - headerBytes]);
  });

  it("says that a server knows no headers, and the connection lives on", async () => {
    await using server = await startNatsServer({ config: noHeaders });
    await using used = await operationsOf(server.url);
    const { operations } = used;
    const headers = readHeaders({ a: "b" });
    const error = await failureOf("not_supported", () => operations.publish("a", bytesOf(1), { headers, timeoutMs }));
    expect(error.message).toContain("does not support headers");
    await operations.publish("a", bytesOf(1), { timeoutMs });
    await operations.flush({ timeoutMs });
  });

  it("refuses subjects that would break the protocol", async () => {
    const { operations } = used;
    for (const subject of ["", "a b", "a\r\nPUB b 0", "a\tb", "a\u0000b"]) {
      await failureOf("invalid_argument", () => operations.publish(subject, bytesOf(1), { timeoutMs }));
      await failureOf("invalid_argument", () => operations.publish("a", bytesOf(1), { reply: subject, timeoutMs }));
      await failureOf("invalid_argument", () => operations.publishBatch(subject, [bytesOf(1)], { timeoutMs }));
    }
  });

  it("fails with nats_unavailable once the connection has ended, as nothing is sent any more", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    await server.kill();
    await used.connection.closed();
    const { operations } = used;
    await failureOf("nats_unavailable", () => operations.publish("a", bytesOf(1), { timeoutMs }));
    await failureOf("nats_unavailable", () => operations.publishBatch("a", [bytesOf(1)], { timeoutMs }));
    await failureOf("nats_unavailable", () => operations.flush({ timeoutMs }));
  });

  it("tells by the deadline what a server that does not read leaves open, and what was never sent", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url, { pingInterval: 60_000 });
    const { operations } = used;
    await hang(server, used);
    try {
      // More than both sockets hold.
      const many = new Array<Uint8Array>(32).fill(bytesOf(1_000_000));
      const first = failureOf("outcome_unknown", () => operations.publishBatch("a", many, { timeoutMs: 300 }));
      const second = failureOf("nats_unavailable", () => operations.publish("b", bytesOf(1), { timeoutMs: 200 }));
      const third = failureOf("nats_unavailable", () => operations.request("b", bytesOf(1), { timeoutMs: 200 }));
      noTimersAbove(300);
      expect((await first).outcome).toBe("unknown");
      expect((await second).message).toContain("was not sent");
      await third;
    } finally {
      server.signal("SIGCONT");
    }
    await operations.flush({ timeoutMs });
  });

  it("waits for a server that reads late, and sends then", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    const { operations, stock } = used;
    const received = receive(stock, "late", 1);
    await stock.flush();
    await hang(server, used);
    const many = new Array<Uint8Array>(32).fill(bytesOf(1_000_000));
    const before = operations.publishBatch("a", many, { timeoutMs });
    const late = operations.publish("late", bytesOf(1), { timeoutMs });
    expect(late).toBeInstanceOf(Promise);
    server.signal("SIGCONT");
    await Promise.all([before, late]);
    expect((await received).length).toBe(1);
  });

  it("leaves open what had not left when the server died", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    const { operations } = used;
    await hang(server, used);
    const many = new Array<Uint8Array>(32).fill(bytesOf(1_000_000));
    const underWay = failureOf("outcome_unknown", () => operations.publishBatch("a", many, { timeoutMs }));
    const notSent = failureOf("nats_unavailable", () => operations.publish("b", bytesOf(1), { timeoutMs }));
    await server.kill();
    await Promise.all([underWay, notSent]);
  });
});

describe("publishBatch", () => {
  it("keeps its place behind what was published before", async () => {
    const { operations, connection, stock } = used;
    const received = receive(stock, "operations.order", 3);
    await stock.flush();
    connection.publish("operations.order", "queued");
    await operations.publishBatch("operations.order", [Buffer.from("batch")], { timeoutMs });
    connection.publish("operations.order", "after");
    expect((await received).map((message) => message.string())).toEqual(["queued", "batch", "after"]);
  });

  it("sends nothing of a batch with a message that is too large", async () => {
    await using server = await startNatsServer({ config: "max_payload: 1000" });
    await using used = await operationsOf(server.url);
    const { operations, stock } = used;
    const received = receive(stock, "checked", 1);
    await stock.flush();
    const payloads = [bytesOf(1), bytesOf(1_001)];
    await failureOf("payload_too_large", () => operations.publishBatch("checked", payloads, { timeoutMs }));
    await operations.publish("checked", bytesOf(7), { timeoutMs });
    expect((await received).map(({ data }) => data.length)).toEqual([7]);
  });

  it("does nothing for no messages", async () => {
    expect(used.operations.publishBatch("a", [], { timeoutMs })).toBeUndefined();
  });
});

describe("publishSoon", () => {
  it("has arrived when a flush ends, with others of other subjects", async () => {
    const received: string[] = [];
    used.stock.subscribe("operations.soon.*", {
      callback: (_error, message) =>
        void received.push(`${message.subject} ${message.string()} ${message.headers?.get("a")}`),
    });
    await used.stock.flush();
    await Promise.all([
      used.operations.publishSoon("operations.soon.a", Buffer.from("1"), { timeoutMs }),
      used.operations.publishSoon("operations.soon.b", Buffer.from("2"), {
        headers: readHeaders({ a: "b" }),
        timeoutMs,
      }),
    ]);
    await used.operations.flush({ timeoutMs });
    await used.stock.flush();
    expect(received).toEqual(["operations.soon.a 1 undefined", "operations.soon.b 2 b"]);
  });

  it("waits for a server that reads late, and refuses what the server would end the connection over", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    const { operations, stock } = used;
    const received = receive(stock, "late", 1);
    await stock.flush();
    await hang(server, used);
    const many = new Array<Uint8Array>(32).fill(bytesOf(1_000_000));
    const before = operations.publishBatch("a", many, { timeoutMs });
    const late = operations.publishSoon("late", bytesOf(1), { timeoutMs });
    await failureOf("nats_unavailable", () => operations.publishSoon("late", bytesOf(2), { timeoutMs: 100 }));
    await failureOf("payload_too_large", () => operations.publishSoon("late", bytesOf(2 << 20), { timeoutMs }));
    await failureOf("invalid_argument", () => operations.publishSoon("a b", bytesOf(1), { timeoutMs }));
    server.signal("SIGCONT");
    await Promise.all([before, late]);
    expect((await received).map(({ data }) => data.length)).toEqual([1]);
  });
});
