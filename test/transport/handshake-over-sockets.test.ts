import { describe, expect, it } from "vitest";
import { ErrorCode } from "../../generated/ts/codecs/hawser/errors/v1/errors.js";
import { HawserError } from "../../src/foundation/errors/index.js";
import type { Authorization } from "../../src/jobs-and-peers/transport/index.js";
import { encode } from "../wire/coding.js";
import { fakeListener } from "./fake-listener.js";
import { connectPair, dialTest, Inbox, identity, secret, TestListener, welcome, wholeWelcome } from "./pair.js";
import { RawClient } from "./raw-client.js";
import { TcpProxy } from "./tcp-proxy.js";

const withCode = (code: string) => expect.objectContaining({ code });
const newSecret = new Uint8Array(32).fill(8);

describe("a handshake over sockets", () => {
  it("refuses a dialler with the wrong secret, and reports that once on each side", async () => {
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

  it("accepts both secrets during a rotation", async () => {
    await using listener = await TestListener.start({ secrets: () => [newSecret, secret] });
    for (const one of [secret, newSecret]) (await dialTest(listener.address, { secret: one })).connection.destroy();
    expect(listener.accepted.all).toHaveLength(2);
  });

  it("rejects a listener that reflects the dialler's own MAC", async () => {
    await using listener = await fakeListener((frame, socket) => {
      if (frame.$case !== "hello") return;
      const { mac } = frame.value;
      socket.write(encode({ $case: "welcome", value: { ...wholeWelcome, mac } }));
    });
    await expect(dialTest(listener.address)).rejects.toThrow(withCode("unauthenticated"));
  });

  it("rejects the recorded bytes of another connection", async () => {
    await using pair = await connectPair();
    const { listener } = pair;
    await using proxy = await TcpProxy.to(listener.port);
    (await dialTest(proxy.address)).connection.destroy();
    using replay = await RawClient.connect(listener.port);
    replay.socket.write(Buffer.concat(proxy.forward));
    expect((await listener.refusals.next()).code).toBe("unauthenticated");
    expect(await replay.frames.next()).toMatchObject({ $case: "challenge" });
    expect(await replay.frames.next()).toMatchObject({ $case: "refuse", value: { code: ErrorCode.UNAUTHENTICATED } });
    await replay.closed;
    expect(listener.accepted.all).toHaveLength(2);
  });

  it("refuses a Hello for another name", async () => {
    await using listener = await TestListener.start({ listenerName: "orders-2" });
    await expect(dialTest(listener.address)).rejects.toThrow(withCode("wrong_peer"));
    expect((await listener.refusals.next()).code).toBe("wrong_peer");
  });

  it("passes on the listener's decision: an older epoch is fenced", async () => {
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

  it("lets the listener refuse the older of two twins", async () => {
    await using pair = await connectPair();
    const twin = await dialTest(pair.listener.address);
    pair.accepted.connection.refuse(new HawserError("fenced", "a newer connection took the channel"));
    expect(await pair.sender.events.next()).toMatchObject({ kind: "closed", code: "fenced" });
    expect(await pair.accepted.events.next()).toMatchObject({ kind: "closed", code: "fenced" });
    twin.connection.writeGoLive(identity.epoch);
    const second = await pair.listener.accepted.next();
    expect(await second.events.next()).toEqual({ kind: "goLive" });
    twin.connection.destroy();
  });

  it.each([
    ["a HawserError", new HawserError("store_failed", "Postgres is away"), "store_failed"],
    ["anything else", new Error("a defect"), "internal"],
  ])("refuses when the decision fails with %s", async (_, error, code) => {
    await using listener = await TestListener.start({ authorize: () => Promise.reject(error) });
    await expect(dialTest(listener.address)).rejects.toThrow(withCode(code));
    const refusal = await listener.refusals.next();
    expect(refusal.code).toBe(code);
    if (code === "internal") expect(refusal.cause).toBe(error);
  });

  it("refuses when the handlers cannot be created", async () => {
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

  it("discards a dialler that disconnects while the listener decides", async () => {
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

  it("delivers frames that arrive with Welcome once the dialler has its connection", async () => {
    const ack = { epoch: identity.epoch, number: 1, credit: 1, backlog: 0, busy: false, live: false, queued: 0 };
    await using listener = await TestListener.start({
      onConnection: (connection) => {
        connection.writeAck(ack);
        return {
          onBatch() {},
          onGoLive() {},
          onRequest() {},
          onCancel() {},
          onDrain() {},
          onGoodbye() {},
          onClosed() {},
        };
      },
    });
    let connected = false;
    const seen: boolean[] = [];
    const { connection } = await dialTest(listener.address, {
      handlers: { onAck: () => seen.push(connected), onAnswer() {}, onGoodbye() {}, onDrain() {}, onClosed() {} },
    });
    connected = true;
    while (seen.length === 0) await new Promise((resolve) => setImmediate(resolve));
    expect(seen).toEqual([true]);
    connection.destroy();
  });
});
