import { connect } from "node:net";
import { describe, expect, it } from "vitest";
import { ErrorCode } from "../../generated/ts/codecs/hawser/errors/v1/errors.js";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import type { Authorization } from "../../src/jobs-and-peers/transport/index.js";
import { maxPendingHandshakes } from "../../src/jobs-and-peers/transport/listen.js";
import { type Challenge, Delivery, type Frame } from "../../src/jobs-and-peers/wire/index.js";
import { ManualClock } from "../support/manual-clock.js";
import { encode } from "../wire/coding.js";
import { elsewhere } from "./elsewhere.js";
import { connectPair, dialTest, Inbox, identity, TestListener, welcome } from "./pair.js";
import { helloTo, RawClient } from "./raw-client.js";

const withCode = (code: string) => expect.objectContaining({ code });

describe("a listener", () => {
  /** Begins the handshake first. */
  const begun =
    (behave: (client: RawClient, challenge: Challenge) => void) =>
    async (client: RawClient): Promise<void> =>
      behave(client, await client.begin());
  const ping: Frame = { $case: "ping", value: { token: "1" } };
  const refuse: Frame = { $case: "refuse", value: { code: ErrorCode.UNSUPPORTED_VERSION, message: "too old for me" } };
  const batch: Frame = {
    $case: "batch",
    value: {
      epoch: 1,
      delivery: Delivery.AT_MOST_ONCE,
      firstNumber: 0,
      topicId: 1,
      payloads: [new Uint8Array(1)],
      compressions: [],
      headers: [],
    },
  };
  const twice = (hello: Frame): [Frame, Frame] => [hello, hello];
  const otherNonce = { nonce: new Uint8Array(32) };
  it.each<[string, (client: RawClient) => Promise<void> | void, string]>([
    ["another protocol", ({ socket }) => void socket.write("GET / HTTP/1.1\r\n\r\n"), "protocol_violation"],
    ["a port scanner that says nothing", ({ socket }) => void socket.end(), "connection_lost"],
    ["a reset", ({ socket }) => void socket.resetAndDestroy(), "connection_lost"],
    [
      "a Hello for another connection",
      begun((to, it) => to.send(helloTo({ ...it, ...otherNonce }))),
      "unauthenticated",
    ],
    ["a version it does not speak", begun((to, it) => to.send(helloTo(it, { version: 2 }))), "unsupported_version"],
    ["a Ping instead of a Hello", begun((to) => to.send(ping)), "protocol_violation"],
    ["a frame above 4 KiB", begun((to) => to.socket.write(new Uint8Array([0, 0, 16, 1]))), "protocol_violation"],
    ["a frame of 4 GiB", begun((to) => to.socket.write(new Uint8Array(4).fill(0xff))), "protocol_violation"],
    ["a second Hello", begun((to, it) => to.send(...twice(helloTo(it)))), "protocol_violation"],
    ["a batch before Welcome", begun((to, it) => to.send(helloTo(it), batch)), "protocol_violation"],
    ["a Refuse", begun((to) => to.send(refuse)), "unsupported_version"],
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

  it("refuses a length of 4 GiB before it allocates memory for the frame", async () => {
    const used = () => process.memoryUsage().arrayBuffers;
    const taken: number[] = [];
    await using listener = await TestListener.start({ onHandshakeRefused: () => taken.push(used()) });
    using other = await RawClient.connect(listener.port);
    // From here on there is what all connections share.
    await other.begin();
    using client = await RawClient.connect(listener.port);
    const bytes = Buffer.alloc(200_000, 0xff).fill(protocolConstants.preamble, 0, 4);
    const before = used();
    client.socket.write(bytes);
    await client.closed;
    expect(taken).toHaveLength(1);
    // Node's first read, and little more.
    expect(taken[0]! - before).toBeLessThan(100_000);
  });

  it("limits the whole handshake by its timeout, however many bytes arrive", async () => {
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
    expect(await client.frames.next()).toMatchObject({ $case: "refuse", value: { code: ErrorCode.HANDSHAKE_TIMEOUT } });
    await client.closed;
  });

  it("accepts legitimate diallers, however many others keep it waiting", async () => {
    const clock = new ManualClock();
    await using listener = await TestListener.start({ clock });
    const silent = await Promise.all(
      Array.from({ length: maxPendingHandshakes }, () => RawClient.connect(listener.port)),
    );
    // Each newcomer takes the place of the one that has waited longest.
    (await dialTest(listener.address)).connection.destroy();
    expect(listener.refusals.all).toMatchObject([{ code: "busy" }]);
    using stranger = await RawClient.connect(listener.port);
    using another = await RawClient.connect(listener.port);
    for (let refused = 0; refused < 2; refused++) {
      expect(await listener.refusals.next()).toMatchObject({ code: "busy" });
    }
    const left = new Set(silent);
    const gone = await Promise.all(
      [0, 1].map(() => Promise.race([...left].map((each) => each.closed.then(() => each)))),
    );
    for (const each of gone) left.delete(each);
    clock.advance(protocolConstants.handshakeTimeoutMs);
    await Promise.all([...silent, stranger, another].map(({ closed }) => closed));
    expect(listener.refusals.all).toHaveLength(maxPendingHandshakes + 2);
  });

  it("does not count authenticated diallers that wait for a decision", async () => {
    const clock = new ManualClock();
    const decisions = new Inbox<(decision: Authorization) => void>();
    await using listener = await TestListener.start({
      clock,
      authorize: () => new Promise((resolve) => decisions.push(resolve)),
    });
    const honest = dialTest(listener.address);
    const decide = await decisions.next();
    const strangers = await Promise.all(
      Array.from({ length: maxPendingHandshakes + 1 }, () => RawClient.connect(listener.port)),
    );
    // One too many, without the honest one.
    expect(await listener.refusals.next()).toMatchObject({ code: "busy" });
    decide({ accept: true, welcome });
    (await honest).connection.destroy();
    for (const stranger of strangers) stranger[Symbol.dispose]();
  });

  it("refuses addresses that cannot be bound", async () => {
    await using listener = await TestListener.start();
    const failed = withCode("bind_failed");
    await expect(TestListener.start({ address: listener.address })).rejects.toThrow(failed);
    await expect(TestListener.start({ address: "nonsense" })).rejects.toThrow(failed);
    await expect(TestListener.start({ address: "no-such-host.invalid:0" })).rejects.toThrow(failed);
  });

  it("listens beyond loopback only if the network is trusted", async () => {
    await expect(TestListener.start({ address: "0.0.0.0:0" })).rejects.toThrow(withCode("plaintext_refused"));
    await using listener = await TestListener.start({ address: "0.0.0.0:0", allowPlaintext: true });
    expect(listener.address).toMatch(/^0\.0\.0\.0:\d+$/);
    (await dialTest(`127.0.0.1:${listener.port}`)).connection.destroy();
  });

  it.skipIf(elsewhere === undefined)("refuses whoever reaches it from elsewhere all the same", async () => {
    await using listener = await TestListener.start();
    // As through a port forwarding that keeps the caller's address.
    const socket = connect({ port: listener.port, host: "127.0.0.1", localAddress: elsewhere! });
    expect(await listener.refusals.next()).toMatchObject({ code: "plaintext_refused" });
    socket.destroy();
    expect(listener.refusals.all).toHaveLength(1);
  });

  it("listens on a name and on IPv6", async () => {
    await using named = await TestListener.start({ address: "localhost:0" });
    (await dialTest(named.address)).connection.destroy();
    await using six = await TestListener.start({ address: "[::1]:0" });
    expect(six.address).toMatch(/^\[::1\]:\d+$/);
    (await dialTest(six.address)).connection.destroy();
  });

  it("frees its port when it closes, and keeps connections if requested", async () => {
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

  it("ends pending handshakes without a report when it closes", async () => {
    const listener = await TestListener.start();
    using client = await RawClient.connect(listener.port);
    await client.begin();
    await listener.close(false);
    await client.closed;
    expect(listener.refusals.all).toHaveLength(0);
  });
});
