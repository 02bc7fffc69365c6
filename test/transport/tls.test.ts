import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { ErrorCode } from "../../generated/ts/codecs/hawser/errors/v1/errors.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { TlsCredentials, type TlsOptions } from "../../src/foundation/tls/index.js";
import { Delivery } from "../../src/jobs-and-peers/wire/index.js";
import { CertificateAuthority } from "../support/certificate-authority.js";
import { ManualClock } from "../support/manual-clock.js";
import { ownPort } from "../support/own-port.js";
import { elsewhere } from "./elsewhere.js";
import { connectPair, dialTest, identity, TestListener } from "./pair.js";
import { RawClient } from "./raw-client.js";
import { settle } from "./settle.js";
import { TcpProxy } from "./tcp-proxy.js";
import { TlsProxy } from "./tls-proxy.js";

const authority = new CertificateAuthority();
const otherAuthority = new CertificateAuthority("Another authority");
const local = ["localhost", "127.0.0.1"];
const ours = authority.issue(local);
const { handshakeTimeoutMs } = protocolConstants;

const failed = (code: string, message: string | RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

/** Credentials of a peer that has a certificate from {@link authority} and trusts it. */
function credentials(options: Partial<TlsOptions> = {}): TlsCredentials {
  return new TlsCredentials({ ...ours, ca: authority.certificate, ...options });
}

describe("TLS between two peers", () => {
  it("distinguishes two connections from one port to two addresses of the listener", async () => {
    await using listener = await TestListener.start({ address: "0.0.0.0:0", tls: credentials() });
    const localPort = await ownPort();
    const from = { port: listener.port, localAddress: "127.0.0.1", localPort };
    // It has begun with TLS, and says no more.
    const mute = connect({ host: "127.0.0.1", ...from });
    await once(mute, "connect");
    mute.write(Buffer.from([0x16, 3, 1]));
    const other = connect({ host: "127.0.0.2", ...from });
    await once(other, "connect");
    const secured = connectTls({ socket: other, ca: authority.certificate, servername: "localhost" });
    await once(secured, "secureConnect");
    const client = RawClient.over(secured);
    await client.begin();
    mute.destroy();
    expect(await listener.refusals.next()).toMatchObject({ code: expect.stringMatching(/tls_failed|connection_lost/) });
    secured.destroy();
    await listener.refusals.next();
    expect(listener.refusals.all).toHaveLength(2);
  });

  it("carries frames both ways and ends gracefully", async () => {
    await using pair = await connectPair({ listen: { tls: credentials() }, dial: { tls: credentials() } });
    const { sender, accepted } = pair;
    const payloads = [new Uint8Array(300_000).fill(7), new Uint8Array(1)];
    sender.connection.writeBatch({
      epoch: identity.epoch,
      delivery: Delivery.AT_LEAST_ONCE,
      firstNumber: 1,
      topicId: 1,
      payloads,
      compressions: [],
      headers: [],
    });
    const came = await accepted.events.next();
    if (came.kind !== "batch") throw new Error(`expected a batch, got ${came.kind}`);
    expect(came.batch.payloads.map(({ length }) => length)).toEqual([300_000, 1]);
    const ack = { epoch: identity.epoch, number: 2, credit: 1, backlog: 0, busy: false, live: true, queued: 0 };
    accepted.connection.writeAck(ack);
    expect(await sender.events.next()).toEqual({ kind: "ack", ack });
    sender.connection.writeGoodbye();
    expect(await accepted.events.next()).toMatchObject({ kind: "goodbye" });
    accepted.connection.writeGoodbye({ epoch: identity.epoch, number: 2 });
    accepted.connection.end();
    expect(await sender.events.next()).toMatchObject({ kind: "goodbye", goodbye: { number: 2 } });
    sender.connection.end();
    expect(await sender.events.next()).toMatchObject({ kind: "closed", code: undefined });
    expect(await accepted.events.next()).toMatchObject({ kind: "closed", code: undefined });
  });

  it("hides the traffic from the network", async () => {
    await using listener = await TestListener.start({ tls: credentials() });
    await using wire = await TcpProxy.to(listener.port);
    const { connection } = await dialTest(wire.address, { tls: credentials() });
    const { events } = await listener.accepted.next();
    const secretWords = Buffer.from("nobody but the two may read this");
    connection.writeBatch({
      epoch: identity.epoch,
      delivery: Delivery.AT_MOST_ONCE,
      firstNumber: 0,
      topicId: 1,
      payloads: [secretWords],
      compressions: [],
      headers: [],
    });
    expect(await events.next()).toMatchObject({ kind: "batch" });
    const seen = Buffer.concat(wire.forward);
    expect(seen.length).toBeGreaterThan(secretWords.length);
    for (const hidden of [secretWords, Buffer.from(identity.senderName), Buffer.from(protocolConstants.preamble)]) {
      expect(seen.includes(hidden)).toBe(false);
    }
    connection.destroy();
  });

  it("works with bytes that arrive one at a time", async () => {
    await using listener = await TestListener.start({ tls: credentials() });
    await using wire = await TcpProxy.to(listener.port, { pieceBytes: 1 });
    const { connection } = await dialTest(wire.address, { tls: credentials() });
    connection.writeGoLive(identity.epoch);
    expect(await (await listener.accepted.next()).events.next()).toEqual({ kind: "goLive" });
    connection.destroy();
  });

  it.skipIf(elsewhere === undefined)("goes beyond loopback without allowPlaintext", async () => {
    const tls = credentials(authority.issue([elsewhere as string]));
    await using listener = await TestListener.start({ address: `${elsewhere}:0`, tls });
    (await dialTest(listener.address, { tls })).connection.destroy();
    // And plaintext from there is refused by name.
    const refused = dialTest(listener.address, { allowPlaintext: true });
    await expect(refused).rejects.toThrow(failed("tls_mismatch", "accepts only TLS"));
    expect(await listener.refusals.next()).toMatchObject({ code: "tls_mismatch" });
  });

  it("refuses versions before 1.3", async () => {
    await using listener = await TestListener.start({ tls: credentials() });
    const socket = connectTls({ port: listener.port, ca: authority.certificate, maxVersion: "TLSv1.2" });
    socket.on("error", () => {});
    expect(await listener.refusals.next()).toEqual(
      expect.objectContaining({ code: "tls_failed", message: "TLS failed: unsupported protocol" }),
    );
    expect(listener.refusals.all).toHaveLength(1);
  });
});

describe("the certificate of a listener", () => {
  const notTrusted = /authority that is not trusted; tls\.ca must hold it/;
  it.each<[string, Partial<TlsOptions>, Partial<TlsOptions>, RegExp]>([
    ["from an authority that the dialler does not trust", otherAuthority.issue(local), {}, notTrusted],
    ["from an authority that nobody knows", {}, { ca: undefined }, notTrusted],
    ["for another host", authority.issue(["192.0.2.1"]), {}, /is for another host: IP: 127\.0\.0\.1 .*tls\.serverName/],
    ["for another name than asked for", {}, { serverName: "a.example" }, /is for another host: Host: a\.example/],
    ["made for diallers only", authority.issue(local, { usage: "client" }), {}, /extended key usage/],
  ])("%s is refused, and both sides hear of it", async (_, listens, dials, message) => {
    await using listener = await TestListener.start({ tls: credentials(listens) });
    await expect(dialTest(listener.address, { tls: credentials(dials) })).rejects.toThrow(
      failed("tls_failed", message),
    );
    const refusal = await listener.refusals.next();
    expect(refusal).toMatchObject({ code: "connection_lost" });
    expect(refusal.message).toContain("perhaps it does not accept this peer's certificate");
    expect(listener.accepted.all).toHaveLength(0);
  });

  it("that has expired is refused", async () => {
    // It was valid when its peer started.
    const expired = authority.issue(local, { fromDays: -2, untilDays: -1 });
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() - 1.5 * 86_400_000 });
    onTestFinished(() => void vi.useRealTimers());
    const tls = credentials(expired);
    vi.useRealTimers();
    await using listener = await TestListener.start({ tls });
    await expect(dialTest(listener.address, { tls: credentials() })).rejects.toThrow(
      failed("tls_failed", "has expired; renew it"),
    );
  });

  it("may be for the dialled address or for a name", async () => {
    await using byAddress = await TestListener.start({ tls: credentials(authority.issue(["127.0.0.1"])) });
    (await dialTest(byAddress.address, { tls: credentials() })).connection.destroy();
    await using byName = await TestListener.start({ tls: credentials(authority.issue(["localhost"])) });
    (await dialTest(`localhost:${byName.port}`, { tls: credentials() })).connection.destroy();
  });

  it("may be for serverName, or for any host with verify: ca", async () => {
    const tls = credentials(authority.issue(["orders.example"]));
    await using listener = await TestListener.start({ tls });
    (await dialTest(listener.address, { tls: credentials({ serverName: "orders.example" }) })).connection.destroy();
    (await dialTest(listener.address, { tls: credentials({ verify: "ca" }) })).connection.destroy();
    const others = credentials({ verify: "ca", ca: otherAuthority.certificate });
    await expect(dialTest(listener.address, { tls: others })).rejects.toThrow(failed("tls_failed", "tls.ca"));
  });
});

describe("mutual TLS", () => {
  const mutual = () => credentials({ mutual: true });

  it("accepts diallers with a certificate of the authority", async () => {
    await using listener = await TestListener.start({ tls: mutual() });
    const { connection } = await dialTest(listener.address, { tls: credentials() });
    connection.writeGoLive(identity.epoch);
    expect(await (await listener.accepted.next()).events.next()).toEqual({ kind: "goLive" });
    connection.destroy();
  });

  it.each<[string, Partial<TlsOptions>, RegExp]>([
    [
      "of another authority",
      otherAuthority.issue(local),
      /certificate of the dialler .* is not trusted; tls\.ca must hold it/,
    ],
    ["made for listeners only", authority.issue(local, { usage: "server" }), /extended key usage/],
  ])("tells who shows a certificate %s why it is refused", async (_, dials, message) => {
    await using listener = await TestListener.start({ tls: mutual() });
    await expect(dialTest(listener.address, { tls: credentials(dials) })).rejects.toThrow(
      failed("tls_failed", message),
    );
    expect(await listener.refusals.next()).toEqual(failed("tls_failed", message));
    expect(listener.refusals.all).toHaveLength(1);
    expect(listener.accepted.all).toHaveLength(0);
  });

  it("refuses a dialler without a certificate, even if it resumes a session", async () => {
    await using listener = await TestListener.start({ tls: mutual() });
    let session: Buffer | undefined;
    for (const attempt of ["first", "second"]) {
      const socket = connectTls({ port: listener.port, host: "127.0.0.1", ca: authority.certificate, session });
      socket.on("session", (ticket) => {
        session = ticket;
      });
      const client = RawClient.over(socket);
      await new Promise((resolve) => socket.once("secureConnect", resolve));
      expect(socket.isSessionReused(), attempt).toBe(false);
      socket.write(protocolConstants.preamble);
      const message = expect.stringContaining("presented no certificate");
      expect(await client.frames.next()).toMatchObject({
        $case: "refuse",
        value: { code: ErrorCode.TLS_FAILED, message },
      });
      expect(await listener.refusals.next()).toMatchObject({ code: "tls_failed", message });
      await client.closed;
    }
    expect(listener.accepted.all).toHaveLength(0);
  });
});

describe("a peer with TLS and a peer without", () => {
  it("report the mismatch on both sides, whoever dials", async () => {
    await using secure = await TestListener.start({ tls: credentials() });
    await expect(dialTest(secure.address)).rejects.toThrow(
      failed("tls_mismatch", "accepts only TLS; set the option tls for the dialler"),
    );
    expect(await secure.refusals.next()).toEqual(failed("tls_mismatch", "accepts only TLS"));

    await using plain = await TestListener.start();
    await expect(dialTest(plain.address, { tls: credentials() })).rejects.toThrow(
      failed("tls_mismatch", /does not use TLS; set the option tls/),
    );
    expect(await plain.refusals.next()).toEqual(failed("tls_mismatch", "the dialler uses TLS and this peer does not"));
    for (const { refusals, accepted } of [secure, plain]) {
      expect(refusals.all).toHaveLength(1);
      expect(accepted.all).toHaveLength(0);
    }
  });

  it("detect each other although the dialler's first bytes arrive in pieces", async () => {
    await using plain = await TestListener.start();
    // One that goes on writing would lose the answer if the listener closed at once: that resets the connection.
    const socket = connect({ port: plain.port, host: "127.0.0.1", allowHalfOpen: true });
    const errors: Error[] = [];
    socket.on("error", (error) => errors.push(error));
    const client = RawClient.over(socket);
    socket.write(Buffer.from([0x16]));
    expect(await client.frames.next()).toMatchObject({ $case: "refuse", value: { code: ErrorCode.TLS_MISMATCH } });
    for (let piece = 0; piece < 3; piece++) {
      socket.write(Buffer.alloc(100));
      await settle();
    }
    socket.end();
    await client.closed;
    expect(errors).toEqual([]);
    expect(plain.refusals.all).toMatchObject([{ code: "tls_mismatch" }]);
  });

  it("times out on a server that does not answer TLS", async () => {
    const server = createServer(() => {});
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const connected = new Promise((resolve) => server.once("connection", resolve));
    const clock = new ManualClock();
    const { port } = server.address() as { port: number };
    const dialled = dialTest(`127.0.0.1:${port}`, { tls: credentials(), clock });
    await connected;
    clock.advance(handshakeTimeoutMs);
    await expect(dialled).rejects.toThrow(failed("handshake_timeout", "did not finish"));
    server.close();
  });
});

describe("a listener with TLS", () => {
  it.each<[string, (socket: Socket) => void, string]>([
    ["another protocol", (socket) => void socket.write("GET / HTTP/1.1\r\n\r\n"), "protocol_violation"],
    ["a port scanner that says nothing", (socket) => void socket.end(), "connection_lost"],
    ["a ClientHello that breaks off", (socket) => void socket.end(Buffer.from([0x16, 3, 1])), "connection_lost"],
    [
      "a damaged ClientHello",
      (socket) => void socket.write(Buffer.concat([Buffer.from([0x16, 3, 1, 0, 4]), Buffer.alloc(40)])),
      "tls_failed",
    ],
    [
      "a reset in the middle",
      (socket) => void socket.write(Buffer.from([0x16, 3, 1]), () => void socket.resetAndDestroy()),
      "connection_lost",
    ],
  ])("answers %s with one report and a closed connection", async (_, behave, code) => {
    await using listener = await TestListener.start({ tls: credentials() });
    const socket = connect({ port: listener.port, host: "127.0.0.1" });
    const closed = new Promise((resolve) => socket.once("close", resolve));
    socket.on("error", () => {}).resume();
    await once(socket, "connect");
    behave(socket);
    expect(await listener.refusals.next()).toMatchObject({ code });
    await closed;
    expect(listener.refusals.all).toHaveLength(1);
    (await dialTest(listener.address, { tls: credentials() })).connection.destroy();
  });

  it("limits TLS and handshake together by the timeout", async () => {
    const clock = new ManualClock();
    await using listener = await TestListener.start({ tls: credentials(), clock });
    using silent = await RawClient.connect(listener.port);
    using half = await RawClient.connect(listener.port);
    half.socket.write(Buffer.from([0x16, 3, 1]));
    const socket = connectTls({ port: listener.port, host: "127.0.0.1", ca: authority.certificate });
    socket.on("error", () => {}).resume();
    await new Promise((resolve) => socket.once("secureConnect", resolve));
    await settle();
    clock.advance(handshakeTimeoutMs - 1);
    expect(listener.refusals.all).toHaveLength(0);
    clock.advance(1);
    expect(listener.refusals.all.map(({ code }) => code)).toEqual(Array(3).fill("handshake_timeout"));
    await Promise.all([silent.closed, half.closed, new Promise((resolve) => socket.once("close", resolve))]);
    expect(listener.refusals.all).toHaveLength(3);
  });

  it("ends pending handshakes without a report when it closes", async () => {
    const listener = await TestListener.start({ tls: credentials() });
    using half = await RawClient.connect(listener.port);
    half.socket.write(Buffer.from([0x16, 3, 1]));
    await settle();
    await listener.close(true);
    await half.closed;
    expect(listener.refusals.all).toHaveLength(0);
  });
});

describe("a man in the middle", () => {
  it("that terminates TLS on both sides with a trusted certificate is refused", async () => {
    await using listener = await TestListener.start({ tls: credentials() });
    await using proxy = await TlsProxy.to(listener.port, { ...authority.issue(local), ca: authority.certificate });
    await expect(dialTest(proxy.address, { tls: credentials() })).rejects.toThrow(
      failed("unauthenticated", "did not prove"),
    );
    expect(await listener.refusals.next()).toEqual(failed("unauthenticated", "an intermediary terminates TLS"));
    expect(listener.accepted.all).toHaveLength(0);
    // It did pass everything on.
    expect(Buffer.concat(proxy.read).includes(Buffer.from(identity.senderName))).toBe(true);
  });

  it("that removes TLS in front of a plaintext listener is refused", async () => {
    await using listener = await TestListener.start();
    await using proxy = await TlsProxy.to(listener.port, authority.issue(local));
    await expect(dialTest(proxy.address, { tls: credentials() })).rejects.toThrow(
      failed("unauthenticated", "did not prove"),
    );
    expect(await listener.refusals.next()).toMatchObject({ code: "unauthenticated" });
    expect(listener.accepted.all).toHaveLength(0);
  });
});
