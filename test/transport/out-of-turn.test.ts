/**
 * Every kind of frame at every place of a conversation where it may not come.
 */
import type { Socket } from "node:net";
import { describe, expect, it } from "vitest";
import { ListenerHandshake } from "../../src/jobs-and-peers/transport/handshake.js";
import { ErrorNumber, type Frame, type FrameKind } from "../../src/jobs-and-peers/wire/index.js";
import { encode } from "../wire/coding.js";
import { bytesOfHex, frameVectors } from "../wire/vectors.js";
import { fakeListener } from "./fake-listener.js";
import { dialTest, Inbox, identity, secret, TestListener, wholeWelcome } from "./pair.js";
import { helloTo, RawClient } from "./raw-client.js";

/** Readers of frames: each side, in the handshake and after it. */
type Reader = "a listener that awaits Hello" | "a dialler that awaits Welcome" | "a listener" | "a sender";

/** Which kinds a reader takes; every other one ends the connection. */
const readers: { readonly [K in FrameKind]: readonly Reader[] } = {
  challenge: ["a dialler that awaits Welcome"],
  hello: ["a listener that awaits Hello"],
  welcome: ["a dialler that awaits Welcome"],
  refuse: ["a listener that awaits Hello", "a dialler that awaits Welcome", "a listener", "a sender"],
  batch: ["a listener"],
  ack: ["a sender"],
  goLive: ["a listener"],
  ping: ["a listener", "a sender"],
  pong: ["a listener", "a sender"],
  goodbye: ["a listener", "a sender"],
  request: ["a listener"],
  answer: ["a sender"],
  cancel: ["a listener"],
};

/** The vectors that a reader refuses. */
const refusedBy = (reader: Reader) =>
  frameVectors.filter(({ json }) => !readers[Object.keys(json as object)[0] as FrameKind].includes(reader));

const violation = { code: "protocol_violation" };
const told = { value: { code: ErrorNumber.PROTOCOL_VIOLATION } };

describe("out of turn is refused", () => {
  it.each(refusedBy("a listener that awaits Hello"))("$name, by a listener that awaits Hello", async ({ frameHex }) => {
    await using listener = await TestListener.start();
    using client = await RawClient.connect(listener.port);
    await client.begin();
    client.socket.write(bytesOfHex(frameHex));
    expect(await client.frames.next()).toMatchObject(told);
  });

  it.each(refusedBy("a listener"))("$name, by a listener", async ({ frameHex }) => {
    await using listener = await TestListener.start();
    using client = await RawClient.connect(listener.port);
    client.send(helloTo(await client.begin()));
    expect((await client.frames.next()).$case).toBe("welcome");
    client.socket.write(bytesOfHex(frameHex));
    expect(await client.frames.next()).toMatchObject(told);
  });

  it.each(refusedBy("a dialler that awaits Welcome"))(
    "$name, by a dialler that awaits Welcome",
    async ({ frameHex }) => {
      await using listener = await fakeListener((frame, socket) => {
        if (frame.$case === "hello") socket.write(bytesOfHex(frameHex));
      });
      await expect(dialTest(listener.address)).rejects.toMatchObject(violation);
    },
  );

  it.each(refusedBy("a sender"))("$name, by a sender", async ({ frameHex }) => {
    const said = new Inbox<[Frame, Socket]>();
    await using listener = await fakeListener((frame, socket) => said.push([frame, socket]));
    const dialled = dialTest(listener.address);
    const [frame, socket] = await said.next();
    if (frame.$case !== "hello") throw new Error(`expected a hello, got ${frame.$case}`);
    const { listenerName } = identity;
    const handshake = new ListenerHandshake({ listenerName, nonce: new Uint8Array(32), exporter: new Uint8Array(0) });
    const value = handshake.welcome(handshake.verify(frame.value, [secret]), wholeWelcome);
    socket.write(encode({ $case: "welcome", value }));
    const { events } = await dialled;
    socket.write(bytesOfHex(frameHex));
    expect(await events.next()).toMatchObject({ kind: "closed", ...violation });
  });
});
