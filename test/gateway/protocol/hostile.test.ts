/**
 * Strangers on a socket: cut off in time, while others are served. What they cost is measured in `hostile.slow.test.ts`.
 */
import { expect, it } from "vitest";
import { TlsCredentials } from "../../../src/foundation/tls/index.js";
import { CertificateAuthority } from "../../support/certificate-authority.js";
import { eventually } from "../../support/eventually.js";
import { withEnoughTime } from "../../support/timers.js";
import { errorFields, header, sslRequest } from "./frontend-messages.js";
import { SocketClient } from "./socket-client.js";
import { startServer } from "./test-server.js";
import { goodStartup } from "./test-session.js";

it("strangers that say nothing, little, or one byte after the other are cut off in time and disturb nobody", async () => {
  // The good one has to log in within it.
  const made = await withEnoughTime(500, async (startupTimeoutMs) => {
    const server = await startServer({ startupTimeoutMs });
    const client = await SocketClient.loggedIn(server.address.port).catch(() => undefined);
    return client && { server, client, startupTimeoutMs };
  });
  const { server, startupTimeoutMs } = made;
  const { port } = server.address;
  using good = made.client;
  const said = [Buffer.alloc(0), goodStartup.subarray(0, -1), Buffer.concat([sslRequest, goodStartup.subarray(0, -1)])];
  const strangers = await Promise.all(said.map(() => SocketClient.connect(port)));
  strangers[2]!.encryptionAnswers = 1;
  for (let at = 0; at < 40; at++) {
    for (const [index, { socket }] of strangers.entries()) socket.write(said[index]!.subarray(at, at + 1));
    expect(await good.ask("x")).toBe("TDCZ");
  }
  await Promise.all(strangers.map(({ closed }) => closed));
  for (const { messages } of strangers) {
    expect(messages.filter(({ type }) => type === "E").map(errorFields)).toMatchObject([
      { S: "FATAL", C: "08006", M: `the connection did not authenticate within ${startupTimeoutMs} ms` },
    ]);
  }
  expect(await good.ask("x")).toBe("TDCZ");
  expect(server.sessionCount).toBe(1);
});

it("strangers that ask for TLS and then speak none, or not enough of it, are cut off", async () => {
  const { cert, key } = new CertificateAuthority().issue(["localhost"]);
  const server = await startServer({ tls: new TlsCredentials({ cert, key }), startupTimeoutMs: 500 });
  const { port } = server.address;
  const said = {
    nothing: Buffer.alloc(0),
    "no TLS": goodStartup,
    noise: Buffer.alloc(100_000, 0xa5),
    "half of a handshake": Buffer.from([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]),
  };
  const strangers = Object.values(said).map(async (bytes) => {
    using client = await SocketClient.connect(port);
    client.encryptionAnswers = 1;
    client.socket.write(sslRequest);
    await client.next("S");
    client.socket.removeAllListeners("data").resume();
    client.socket.write(bytes);
    await client.closed;
  });
  await Promise.all(strangers);
  using plain = await SocketClient.connect(port);
  plain.socket.write(goodStartup);
  expect(errorFields(await plain.next("E"))).toMatchObject({ C: "28000" });
});

it("a stranger that speaks TLS though there is none is cut off", async () => {
  const server = await startServer();
  using client = await SocketClient.connect(server.address.port);
  client.encryptionAnswers = 1;
  client.socket.write(sslRequest);
  await client.next("N");
  client.socket.write(Buffer.alloc(100_000, 0x16));
  await client.closed;
});

it("a session that sends rubbish is told so, even while it goes on sending, and then cut off though it does not go", async () => {
  const server = await startServer();
  using client = await SocketClient.loggedIn(server.address.port, { allowHalfOpen: true });
  client.socket.write(Buffer.concat([header("P", 50 * 1024 * 1024), Buffer.alloc(5 * 1024 * 1024)]));
  expect(errorFields(await client.next("E"))).toMatchObject({ S: "FATAL", C: "08P01" });
  await eventually("its session has ended", () => server.sessionCount === 0);
});
