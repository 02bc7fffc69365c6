import { describe, expect, it } from "vitest";
import { eventually } from "../../support/eventually.js";
import { errorFields, header, message, query, rowValue, sslRequest } from "./frontend-messages.js";
import { ServerProcess } from "./server-process.js";
import { SocketClient } from "./socket-client.js";
import { goodStartup } from "./test-session.js";

const mib = 1024 * 1024;

const many = <T>(count: number, make: (index: number) => Promise<T>): Promise<T[]> =>
  Promise.all(Array.from({ length: count }, (_one, index) => make(index)));

describe("300 sessions at once", () => {
  it("are served, and leave nothing behind", async () => {
    using server = await ServerProcess.start({ startupTimeoutMs: 60_000 });
    const round = async (): Promise<void> => {
      const clients = await many(300, () => SocketClient.loggedIn(server.port));
      for (let i = 0; i < 20; i++) await Promise.all(clients.map((client) => client.ask(`bytes ${i}`)));
      expect((await server.report()).sessions).toBe(300);
      for (const client of clients) client[Symbol.dispose]();
      await Promise.all(clients.map(({ closed }) => closed));
    };
    await round();
    const before = await server.idle();
    await round();
    const after = await server.idle();
    expect(after).toMatchObject({ sessions: 0, sessionsEnded: 600, errorsLogged: [] });
    expect(after.bytes - before.bytes).toBeLessThan(2 * mib);
  });
});

describe("strangers", () => {
  it("that say nothing, little, or one byte after the other are cut off in time and disturb nobody", async () => {
    using server = await ServerProcess.start({ startupTimeoutMs: 5000 });
    using good = await SocketClient.loggedIn(server.port);
    const before = await server.report();
    const strangers = await many(100, () => SocketClient.connect(server.port));
    const said = [goodStartup.subarray(0, -1), Buffer.concat([sslRequest, goodStartup.subarray(0, -1)])];
    for (const [index, stranger] of strangers.entries()) stranger.encryptionAnswers = index % 3 === 2 ? 1 : 0;
    for (let at = 0; at < 40; at++) {
      for (const [index, { socket }] of strangers.entries())
        socket.write(said[(index % 3) - 1]?.subarray(at, at + 1) ?? "");
      expect(await good.ask("x")).toBe("TDCZ");
    }
    await Promise.all(strangers.map(({ closed }) => closed));
    const told = strangers.map(({ messages }) => messages.filter(({ type }) => type === "E").map(errorFields));
    expect(told[0]).toMatchObject([
      { S: "FATAL", C: "08006", M: "the connection did not authenticate within 5000 ms" },
    ]);
    expect(await good.ask("x")).toBe("TDCZ");
    let after = before;
    await eventually("all but the good one are gone", async () => {
      after = await server.report();
      return after.resources.filter((name) => name === "TCPSocketWrap").length === 1;
    });
    expect(after.bytes - before.bytes).toBeLessThan(4 * mib);
  });

  it("in any number do not keep those out who know the password", async () => {
    using server = await ServerProcess.start({ maxSessions: 70, startupTimeoutMs: 60_000 });
    using old = await SocketClient.loggedIn(server.port);
    const strangers = await many(500, () => SocketClient.connect(server.port));
    await Promise.all(strangers.slice(0, 430).map(({ closed }) => closed));
    const goods = await many(60, () => SocketClient.loggedIn(server.port));
    for (const good of [old, ...goods]) expect(await good.ask("x")).toBe("TDCZ");
    const { sessions, resources } = await server.report();
    expect(sessions).toBe(61);
    expect(resources.filter((name) => name === "TCPSocketWrap").length).toBeLessThanOrEqual(61 + 70);
    for (const client of [...strangers, ...goods]) client[Symbol.dispose]();
  });
});

describe("a session that", () => {
  it("ends in the middle of a call leaves nothing behind", async () => {
    using server = await ServerProcess.start();
    const before = await server.idle();
    const clients = await many(20, () => SocketClient.loggedIn(server.port));
    const half = query("x".repeat(4 * mib)).subarray(0, 2 * mib);
    for (const [index, { socket }] of clients.entries()) {
      await new Promise((resolve) => socket.write(half, resolve));
      if (index % 2 === 0) socket.resetAndDestroy();
      else socket.end();
    }
    const after = await server.idle();
    expect(after).toMatchObject({ sessions: 0, sessionsEnded: 20, errorsLogged: [] });
    await eventually("their memory is free", async () => (await server.report()).bytes - before.bytes < 2 * mib);
  });

  it("declares hundreds of MiB costs what it sends", async () => {
    using server = await ServerProcess.start({ maxRequestBytes: 1024 * mib });
    const before = await server.report();
    const clients = await many(100, () => SocketClient.loggedIn(server.port));
    for (const { socket } of clients) {
      await new Promise((resolve) =>
        socket.write(Buffer.concat([header("Q", 900 * mib), Buffer.alloc(5000, "x")]), resolve),
      );
    }
    expect(clients[0]!.messages).toHaveLength(0);
    expect((await server.report()).bytes - before.bytes).toBeLessThan(20 * mib);
    for (const client of clients) client[Symbol.dispose]();
    await server.idle();
  });

  it("asks for 30 MiB 50 times and does not read costs one answer, and gets all when it reads", async () => {
    using server = await ServerProcess.start();
    using client = await SocketClient.loggedIn(server.port);
    const before = await server.report();
    client.socket.pause();
    const calls = Array.from({ length: 50 }, () => query(`bytes ${30 * mib}`));
    await new Promise((resolve) => client.socket.write(Buffer.concat(calls), resolve));
    await eventually(
      "the answer fills the socket",
      async () => (await server.report()).bytes - before.bytes > 20 * mib,
    );
    using other = await SocketClient.loggedIn(server.port);
    expect(await other.ask("x")).toBe("TDCZ");
    expect((await server.report()).bytes - before.bytes).toBeLessThan(40 * mib);
    client.socket.resume();
    for (let i = 0; i < 3; i++) expect(rowValue(await client.next("D"))).toHaveLength(30 * mib);
    client[Symbol.dispose]();
  });

  it("sends its call byte by byte, 100,000 of them, costs what the call has", async () => {
    using server = await ServerProcess.start();
    using client = await SocketClient.loggedIn(server.port);
    const before = await server.report();
    const call = message("Q", Buffer.alloc(100_000, "x"), Buffer.alloc(1));
    for (let at = 0; at < call.length - 1; at++) {
      if (!client.socket.write(call.subarray(at, at + 1)))
        await new Promise((drained) => client.socket.once("drain", drained));
    }
    expect((await server.report()).bytes - before.bytes).toBeLessThan(2 * mib);
    client.socket.write(call.subarray(-1));
    await client.next("Z");
    expect(client.taken).toBe("TDCZ");
  });
});
