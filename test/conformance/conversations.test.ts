/**
 * The conversations of the vectors, byte by byte, with this project's own handshake in the place of either side.
 */
import { describe, expect, it } from "vitest";
import { DiallerHandshake, ListenerHandshake } from "../../src/jobs-and-peers/transport/handshake.js";
import { Capability, decodeFrame, type Frame, type FrameKind } from "../../src/jobs-and-peers/wire/index.js";
import { encode } from "../wire/coding.js";
import { bytesOfHex, type ConversationVector, conversationVectors, hexOfBytes } from "../wire/vectors.js";

const none = new Uint8Array(0);

/** The one frame of a kind that a conversation has, and its bytes. */
function frameOf<K extends FrameKind>({ steps }: ConversationVector, kind: K) {
  const step = steps.find(({ frame, frameHex }) => frame === kind && frameHex !== undefined);
  if (step?.frameHex === undefined) return undefined;
  const frame = decodeFrame(bytesOfHex(step.frameHex).subarray(4));
  return { value: frame.value as Extract<Frame, { $case: K }>["value"], hex: step.frameHex };
}

/** Replays a conversation. Returns the output of each side: the frame's bytes, or the code with which it refuses. */
function replay(vector: ConversationVector): { hello: string; welcome: string } {
  const challenge = frameOf(vector, "challenge")!.value;
  const hello = frameOf(vector, "hello");
  const welcome = frameOf(vector, "welcome");
  const secret = bytesOfHex(vector.secretHex);
  const listener = new ListenerHandshake({ listenerName: "orders-1", nonce: challenge.nonce, exporter: none });
  const said = { hello: "", welcome: "" };
  const identity = hello?.value ?? { senderName: "a", sourceTopic: "b", listenerName: "c", channelId: 1, epoch: 1 };
  const { senderName, sourceTopic, listenerName, channelId, epoch } = identity;
  const dialler = new DiallerHandshake({
    identity: { senderName, sourceTopic, listenerName, channelId, epoch },
    secret,
    nonce: hello?.value.nonce ?? new Uint8Array(32),
    exporter: none,
  });
  try {
    const answer = dialler.answer(challenge);
    // What this process can read besides differs between versions of Node.
    said.hello = hexOfBytes(encode({ $case: "hello", value: { ...answer, capabilities: [Capability.GZIP] } }));
  } catch (error) {
    said.hello = codeOf(error);
  }
  if (hello === undefined) return said;
  try {
    const verified = listener.verify(hello.value, [new Uint8Array(32), secret]);
    if (welcome !== undefined) {
      const { mac: _, ...fields } = welcome.value;
      said.welcome = hexOfBytes(encode({ $case: "welcome", value: listener.welcome(verified, fields) }));
      dialler.accept(welcome.value);
    }
  } catch (error) {
    said.welcome = codeOf(error);
  }
  return said;
}

function codeOf(error: unknown): string {
  return (error as { code: string }).code;
}

describe("the vectors of conversations", () => {
  it.each(conversationVectors)("$name: every frame is the bytes that are written for it", ({ steps }) => {
    expect(steps[0]).toMatchObject({ from: "dialler", hex: hexOfBytes(Buffer.from("HWS1")) });
    for (const { frame, frameHex } of steps) {
      if (frameHex === undefined) continue;
      const decoded = decodeFrame(bytesOfHex(frameHex).subarray(4));
      expect(decoded.$case).toBe(frame);
      expect(hexOfBytes(encode(decoded))).toBe(frameHex);
    }
  });

  it.each(conversationVectors)("$name: the handshake says and refuses what is written", (vector) => {
    const said = replay(vector);
    const refusal = vector.steps.find(({ code }) => code !== undefined);
    const welcome = frameOf(vector, "welcome");
    if (refusal === undefined) expect(said).toEqual({ hello: frameOf(vector, "hello")!.hex, welcome: welcome!.hex });
    else if (frameOf(vector, "hello") === undefined) expect(said.hello).toBe(refusal.code);
    else expect(said.welcome).toBe(refusal.code);
  });

  it("have every code with which a handshake ends before the catalog is asked", () => {
    const codes = new Set(conversationVectors.flatMap(({ steps }) => steps.flatMap(({ code }) => code ?? [])));
    expect([...codes].sort()).toEqual(["unauthenticated", "unsupported_version", "wrong_peer"]);
  });
});
