import { createServer, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { describe, expect, it } from "vitest";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { TransportError } from "../../src/errors/index.js";
import type { Authorization } from "../../src/transport/index.js";
import { type Frame, FrameDecoder } from "../../src/wire/index.js";
import { encode } from "../wire/coding.js";
import { connectPair, dialTest, Inbox, identity, ManualClock, secret, TestListener, welcome } from "./pair.js";
import { helloTo, RawClient } from "./raw-client.js";
import { TcpProxy } from "./tcp-proxy.js";

const withCode = (code: string) => expect.objectContaining({ code });
const newSecret = new Uint8Array(32).fill(8);

/** A listener by hand: `answer` is given each frame of the dialler, after a Challenge was sent. */
async function fakeListener(
  answer: (frame: Frame, socket: Socket) => void,
): Promise<AsyncDisposable & { readonly address: string }> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    const decoder = new FrameDecoder({ maxFrameBytes: 4096, preamble: Buffer.from(protocolConstants.preamble) });
    socket.write(
      encode({
        kind: "challenge",
        value: { nonce: new Uint8Array(32), minVersion: 1, maxVersion: 1, capabilities: [] },
      }),
    );
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      decoder.push(new Uint8Array(chunk));
      for (let frame = decoder.next(); frame !== undefined; frame = decoder.next()) answer(frame, socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    address: `127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };
}

describe("a handshake over sockets", () => {
  it("refuses a dialler with the wrong secret, and says so to both sides once", async () => {
    await using listener = await TestListener.start();
    await expect(dialTest(listener.address, { secret: newSecret })).rejects.toThrow(withCode("unauthenticated"));
    const refusal = await listener.refusals.next();
    expect(refusal).toMatchObject({
      code: "unauthenticated",
      remoteAddress: expect.stringMatching(/^127\.0\.0\.1:\d+$/),
    });
    expect(listener.refusals.all).toHaveLength(1);
    expect(listener.accepted.all).toHaveLength(0);
  });

  it("accepts both secrets while one is rotated", async () => {
    await using listener = await TestListener.start({ secrets: () => [newSecret, secret] });
    for (const one of [secret, newSecret]) (await dialTest(listener.address, { secret: one })).connection.destroy();
    expect(listener.accepted.all).toHaveLength(2);
  });

  it("does not believe a listener that sends the dialler's own MAC back", async () => {
    await using listener = await fakeListener((frame, socket) => {
      if (frame.kind !== "hello") return;
      const { mac } = frame.value;
      socket.write(encode({ kind: "welcome", value: { ...welcome, maxMessageBytes: 1000, capabilities: [], mac } }));
    });
    await expect(dialTest(listener.address)).rejects.toThrow(withCode("unauthenticated"));
  });

  it("does not accept the recorded bytes of another connection", async () => {
    await using pair = await connectPair();
    const { listener } = pair;
    await using proxy = await TcpProxy.to(listener.port);
    (await dialTest(proxy.address)).connection.destroy();
    using replay = await RawClient.connect(listener.port);
    replay.socket.write(Buffer.concat(proxy.forward));
    expect((await listener.refusals.next()).code).toBe("unauthenticated");
    expect(await replay.frames.next()).toMatchObject({ kind: "challenge" });
    expect(await replay.frames.next()).toMatchObject({ kind: "refuse", value: { code: "unauthenticated" } });
    await replay.closed;
    expect(listener.accepted.all).toHaveLength(2);
  });

  it("refuses a Hello for another name", async () => {
    await using listener = await TestListener.start({ listenerName: "orders-2" });
    await expect(dialTest(listener.address)).rejects.toThrow(withCode("wrong_peer"));
    expect((await listener.refusals.next()).code).toBe("wrong_peer");
  });

  it("passes on what the listener decides: an older epoch is fenced", async () => {
    await using listener = await TestListener.start({
      authorize: async ({ epoch }) =>
        epoch < identity.epoch
          ? { accept: false, code: "fenced", message: `epoch ${epoch} is older than ${identity.epoch}` }
          : { accept: true, welcome },
    });
    const older = { ...identity, epoch: identity.epoch - 1 };
    await expect(dialTest(listener.address, { identity: older })).rejects.toThrow(
      expect.objectContaining({ code: "fenced", message: expect.stringContaining("is older than") }),
    );
    expect((await listener.refusals.next()).code).toBe("fenced");
    (await dialTest(listener.address)).connection.destroy();
  });

  it("lets the listener turn the older of two twins away", async () => {
    await using pair = await connectPair();
    const twin = await dialTest(pair.listener.address);
    pair.accepted.connection.refuse(new TransportError("fenced", "a newer connection took the channel"));
    expect(await pair.sender.events.next()).toMatchObject({ kind: "closed", code: "fenced" });
    expect(await pair.accepted.events.next()).toMatchObject({ kind: "closed", code: "fenced" });
    twin.connection.writeGoLive(identity.epoch);
    const second = await pair.listener.accepted.next();
    expect(await second.events.next()).toEqual({ kind: "goLive" });
    twin.connection.destroy();
  });

  it.each([
    ["a HawserError", new TransportError("store_failed", "Postgres is away"), "store_failed"],
    ["anything else", new Error("a defect"), "internal"],
  ])("refuses when the decision fails with %s", async (_, error, code) => {
    await using listener = await TestListener.start({ authorize: () => Promise.reject(error) });
    await expect(dialTest(listener.address)).rejects.toThrow(withCode(code));
    const refusal = await listener.refusals.next();
    expect(refusal.code).toBe(code);
    if (code === "internal") expect(refusal.cause).toBe(error);
  });

  it("refuses when the handlers cannot be made", async () => {
    const error = new Error("a defect");
    await using listener = await TestListener.start({
      onConnection: () => {
        throw error;
      },
    });
    const outcome = await dialTest(listener.address).then(
      ({ events }) => events.next(),
      (refused: unknown) => refused,
    );
    expect(outcome).toMatchObject({ code: "internal" });
    expect(await listener.refusals.next()).toMatchObject({ code: "internal", cause: error });
  });

  it("forgets a dialler that goes while the listener decides", async () => {
    const decisions = new Inbox<(decision: Authorization) => void>();
    await using listener = await TestListener.start({
      authorize: () => new Promise((resolve) => decisions.push(resolve)),
    });
    const attempt = new AbortController();
    const dialled = dialTest(listener.address, { signal: attempt.signal });
    const decide = await decisions.next();
    attempt.abort();
    await expect(dialled).rejects.toThrow(withCode("aborted"));
    expect((await listener.refusals.next()).code).toBe("connection_lost");
    decide({ accept: true, welcome });
    await new Promise((resolve) => setImmediate(resolve));
    expect(listener.accepted.all).toHaveLength(0);
    expect(listener.refusals.all).toHaveLength(1);
  });

  it("delivers what comes together with Welcome once the dialler has its connection", async () => {
    const ack = { epoch: identity.epoch, number: 1, credit: 1, backlog: 0, busy: false, live: false };
    await using listener = await TestListener.start({
      onConnection: (connection) => {
        connection.writeAck(ack);
        return { onBatch() {}, onGoLive() {}, onGoodbye() {}, onClosed() {} };
      },
    });
    let connected = false;
    const seen: boolean[] = [];
    const { connection } = await dialTest(listener.address, {
      handlers: { onAck: () => seen.push(connected), onGoodbye() {}, onDrain() {}, onClosed() {} },
    });
    connected = true;
    while (seen.length === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(seen).toEqual([true]);
    connection.destroy();
  });
});

describe("a listener", () => {
  it.each<[string, (client: RawClient) => Promise<void> | void, string]>([
    ["another protocol", (client) => void client.socket.write("GET / HTTP/1.1\r\n\r\n"), "protocol_violation"],
    ["a port scanner that says nothing", (client) => void client.socket.end(), "connection_lost"],
    ["a reset", (client) => void client.socket.resetAndDestroy(), "connection_lost"],
    [
      "a Hello for another connection",
      async (client) => {
        const challenge = await client.begin();
        client.send(helloTo({ ...challenge, nonce: new Uint8Array(32) }));
      },
      "unauthenticated",
    ],
    [
      "a version that it does not speak",
      async (client) => client.send(helloTo(await client.begin(), { version: 2 })),
      "unsupported_version",
    ],
    [
      "a Ping instead of a Hello",
      async (client) => {
        await client.begin();
        client.send({ kind: "ping", value: { token: 1n } });
      },
      "protocol_violation",
    ],
    [
      "a frame of more than 4 KiB",
      async (client) => {
        await client.begin();
        client.socket.write(new Uint8Array([0, 0, 16, 1]));
      },
      "protocol_violation",
    ],
    [
      "a frame of 4 GiB",
      async (client) => {
        await client.begin();
        client.socket.write(new Uint8Array([0xff, 0xff, 0xff, 0xff]));
      },
      "protocol_violation",
    ],
    [
      "a second Hello",
      async (client) => {
        const hello = helloTo(await client.begin());
        client.send(hello, hello);
      },
      "protocol_violation",
    ],
    [
      "a batch before Welcome",
      async (client) => {
        const batch = {
          epoch: 1,
          delivery: "at-most-once",
          firstNumber: 0,
          topicKey: 1,
          payloads: [new Uint8Array(1)],
        };
        client.send(helloTo(await client.begin()), { kind: "batch", value: batch } as Frame);
      },
      "protocol_violation",
    ],
    [
      "a Refuse",
      async (client) => {
        await client.begin();
        client.send({ kind: "refuse", value: { code: "unsupported_version", message: "too old for me" } });
      },
      "unsupported_version",
    ],
  ])("answers %s with one report and a closed connection", async (_, behave, code) => {
    // An authorization that never comes, so that the connection stays before Welcome.
    await using listener = await TestListener.start({ authorize: () => new Promise(() => {}) });
    using client = await RawClient.connect(listener.port);
    await behave(client);
    expect(await listener.refusals.next()).toMatchObject({ code });
    await client.closed;
    expect(listener.refusals.all).toHaveLength(1);
    expect(listener.accepted.all).toHaveLength(0);
  });

  it("gives the whole handshake its time, however many bytes come meanwhile", async () => {
    const clock = new ManualClock();
    await using listener = await TestListener.start({ clock });
    using client = await RawClient.connect(listener.port);
    const challenge = await client.begin();
    const bytes = encode(helloTo(challenge));
    for (let second = 0; second < 4; second++) {
      client.socket.write(bytes.subarray(second, second + 1));
      clock.advance(1000);
    }
    clock.advance(999);
    expect(listener.refusals.all).toHaveLength(0);
    clock.advance(1);
    expect(listener.refusals.all).toMatchObject([{ code: "handshake_timeout" }]);
    expect(await client.frames.next()).toMatchObject({ kind: "refuse", value: { code: "handshake_timeout" } });
    await client.closed;
  });

  it("closes what comes beyond its pending handshakes, and accepts again when there is room", async () => {
    const clock = new ManualClock();
    await using listener = await TestListener.start({ clock });
    const { maxPendingHandshakes } = protocolConstants;
    const silent = await Promise.all(
      Array.from({ length: maxPendingHandshakes }, () => RawClient.connect(listener.port)),
    );
    using late = await RawClient.connect(listener.port);
    expect(await listener.refusals.next()).toMatchObject({ code: "busy" });
    await late.closed;
    clock.advance(protocolConstants.handshakeTimeoutMs);
    await Promise.all(silent.map(({ closed }) => closed));
    expect(listener.refusals.all).toHaveLength(maxPendingHandshakes + 1);
    (await dialTest(listener.address)).connection.destroy();
  });

  it("refuses addresses that cannot be bound", async () => {
    await using listener = await TestListener.start();
    const failed = withCode("bind_failed");
    await expect(TestListener.start({ address: listener.address })).rejects.toThrow(failed);
    await expect(TestListener.start({ address: "nonsense" })).rejects.toThrow(failed);
    await expect(TestListener.start({ address: "no-such-host.invalid:0" })).rejects.toThrow(failed);
  });

  it("listens beyond loopback only where the network is trusted", async () => {
    await expect(TestListener.start({ address: "0.0.0.0:0" })).rejects.toThrow(withCode("plaintext_refused"));
    await using listener = await TestListener.start({ address: "0.0.0.0:0", allowPlaintext: true });
    expect(listener.address).toMatch(/^0\.0\.0\.0:\d+$/);
    (await dialTest(`127.0.0.1:${listener.port}`)).connection.destroy();
  });

  it("listens on a name and on IPv6", async () => {
    await using named = await TestListener.start({ address: "localhost:0" });
    (await dialTest(named.address)).connection.destroy();
    await using six = await TestListener.start({ address: "[::1]:0" });
    expect(six.address).toMatch(/^\[::1\]:\d+$/);
    (await dialTest(six.address)).connection.destroy();
  });

  it("frees its port when it closes, and leaves connections alone if told so", async () => {
    const pair = await connectPair();
    await pair.listener.close(false);
    await using again = await TestListener.start({ address: pair.listener.address });
    expect(again.address).toBe(pair.listener.address);
    pair.sender.connection.writeGoLive(identity.epoch);
    expect(await pair.accepted.events.next()).toEqual({ kind: "goLive" });
    await pair.listener.close(true);
    expect(await pair.sender.events.next()).toMatchObject({ kind: "closed", code: "connection_lost" });
    expect(pair.accepted.events.all).toHaveLength(1);
  });

  it("ends handshakes under way without a report when it closes", async () => {
    const listener = await TestListener.start();
    using client = await RawClient.connect(listener.port);
    await client.begin();
    await listener.close(false);
    await client.closed;
    expect(listener.refusals.all).toHaveLength(0);
  });
});

describe("dialling", () => {
  it("rejects when nobody listens, and says why", async () => {
    const listener = await TestListener.start();
    const { address, port } = listener;
    await listener.close(true);
    const refused = expect.objectContaining({
      code: "connection_lost",
      message: expect.stringContaining("ECONNREFUSED"),
    });
    await expect(dialTest(address)).rejects.toThrow(refused);
    await expect(dialTest(`localhost:${port}`)).rejects.toThrow(refused);
  });

  it("rejects when the listener does not finish the handshake in time", async () => {
    const clock = new ManualClock();
    const hellos = new Inbox<Frame>();
    await using listener = await fakeListener((frame) => hellos.push(frame));
    const dialled = dialTest(listener.address, { clock });
    await hellos.next();
    clock.advance(protocolConstants.handshakeTimeoutMs);
    await expect(dialled).rejects.toThrow(withCode("handshake_timeout"));
  });

  it("rejects what does not speak the protocol", async () => {
    const server = createServer((socket) => void socket.end("HTTP/1.1 400 Bad Request\r\n\r\n"));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as { port: number };
    await expect(dialTest(`127.0.0.1:${port}`)).rejects.toThrow(withCode("protocol_violation"));
    server.close();
  });

  it("stops at its signal, before and meanwhile", async () => {
    await using listener = await fakeListener(() => {});
    const reason = new Error("enough");
    const aborted = expect.objectContaining({ code: "aborted", cause: reason });
    await expect(dialTest(listener.address, { signal: AbortSignal.abort(reason) })).rejects.toThrow(aborted);
    const attempt = new AbortController();
    const dialled = dialTest(listener.address, { signal: attempt.signal });
    attempt.abort(reason);
    await expect(dialled).rejects.toThrow(aborted);
  });

  it("leaves an established connection alone when its signal fires later", async () => {
    const attempt = new AbortController();
    await using pair = await connectPair({ dial: { signal: attempt.signal } });
    attempt.abort();
    pair.sender.connection.writeGoLive(identity.epoch);
    expect(await pair.accepted.events.next()).toEqual({ kind: "goLive" });
  });

  it("goes beyond loopback only where the network is trusted, and then before anything is sent", async () => {
    const refused = withCode("plaintext_refused");
    for (const address of ["192.0.2.1:1", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:1"]) {
      await expect(dialTest(address)).rejects.toThrow(refused);
    }
  });

  it("refuses an empty secret and a malformed address", async () => {
    const invalid = withCode("invalid_argument");
    await expect(dialTest("127.0.0.1:1", { secret: new Uint8Array(0) })).rejects.toThrow(invalid);
    await expect(dialTest("127.0.0.1")).rejects.toThrow(invalid);
  });

  const elsewhere = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .find(({ family, internal }) => family === "IPv4" && !internal)?.address;

  it.skipIf(elsewhere === undefined)("works beyond loopback where the network is trusted", async () => {
    await using listener = await TestListener.start({ address: `${elsewhere}:0`, allowPlaintext: true });
    await expect(dialTest(listener.address)).rejects.toThrow(withCode("plaintext_refused"));
    (await dialTest(listener.address, { allowPlaintext: true })).connection.destroy();
  });
});
