import { once } from "node:events";
import { connect } from "node:net";
import { describe, expect, it } from "vitest";
import { startNatsServer } from "../../support/nats-server.js";
import { bytesOf, failureOf, hang, operationsOf, timeoutMs } from "./operations-of.js";

/** INFO of the server. */
async function greetingOf(port: number): Promise<Record<string, unknown>> {
  const socket = connect(port, "127.0.0.1");
  try {
    const [chunk] = (await once(socket, "data")) as [Buffer];
    return JSON.parse(chunk.toString().slice("INFO ".length).split("\r\n")[0]!);
  } finally {
    socket.destroy();
  }
}

describe("serverInfo", () => {
  it("says what the server says of itself", async () => {
    await using server = await startNatsServer({
      config: 'server_name: "shown"\nmax_payload: 5000\nauthorization { user: u, password: p }',
    });
    await using used = await operationsOf(server.url, { user: "u", pass: "p" });
    const greeting = await greetingOf(server.port);
    const info = used.operations.serverInfo();
    expect(info).toEqual({
      serverId: greeting["server_id"],
      serverName: "shown",
      host: "127.0.0.1",
      port: server.port,
      version: greeting["version"],
      authRequired: true,
      tlsRequiered: false,
      tlsRequired: false,
      maxPayload: 5000n,
      proto: 1,
      clientId: expect.any(BigInt),
      go: greeting["go"],
      nonce: undefined,
      connectUrls: undefined,
      clientIp: "127.0.0.1",
      headers: true,
      lameDuckMode: false,
    });
    expect(info.clientId).toBeGreaterThan(0n);
  });

  it("is nats_unavailable when the connection has ended", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    await server.kill();
    await used.connection.closed();
    await failureOf("nats_unavailable", () => used.operations.serverInfo());
  });
});

describe("flush", () => {
  it("resolves when the server has handled what was published before", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    let received = 0;
    used.stock.subscribe("flushed", { callback: () => void received++ });
    await used.stock.flush();
    await used.operations.publishBatch(
      "flushed",
      Array.from({ length: 1_000 }, () => bytesOf(100)),
      { timeoutMs },
    );
    await used.operations.flush({ timeoutMs });
    await used.stock.flush();
    expect(received).toBe(1_000);
  });

  it("ends with the connection, although nats.js would wait forever", async () => {
    await using server = await startNatsServer();
    await using used = await operationsOf(server.url);
    await hang(server, used);
    const failure = failureOf("outcome_unknown", () => used.operations.flush({ timeoutMs: 60_000 }));
    await server.kill();
    await failure;
  });
});
