/**
 * A dialler by hand: sends what no honest one would, and sees what comes back.
 */
import { connect, type Socket } from "node:net";
import { protocolConstants } from "../../generated/ts/settings/peer.js";
import { handshakeMac } from "../../src/jobs-and-peers/transport/handshake.js";
import { type Challenge, type Frame, FrameDecoder, type Hello } from "../../src/jobs-and-peers/wire/index.js";
import { encode } from "../wire/coding.js";
import { Inbox, identity, secret } from "./pair.js";

const helloNonce = new Uint8Array(32).fill(3);

/** A raw connection. What it receives is decoded; errors of the socket are taken for its end. */
export class RawClient implements Disposable {
  readonly frames = new Inbox<Frame>();
  readonly closed: Promise<void>;
  readonly #decoder = new FrameDecoder({ maxFrameBytes: 1 << 20 });

  readonly socket: Socket;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      this.#decoder.push(new Uint8Array(chunk));
      for (let frame = this.#decoder.next(); frame !== undefined; frame = this.#decoder.next()) this.frames.push(frame);
    });
    this.closed = new Promise((resolve) => socket.once("close", () => resolve()));
  }

  static async connect(port: number): Promise<RawClient> {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    const client = new RawClient(socket);
    await new Promise((resolve) => socket.once("connect", resolve));
    return client;
  }

  /** Over a socket that somebody else made. */
  static over(socket: Socket): RawClient {
    return new RawClient(socket);
  }

  /** Sends the preamble. @returns the listener's Challenge */
  async begin(): Promise<Challenge> {
    this.socket.write(protocolConstants.preamble);
    const frame = await this.frames.next();
    if (frame.$case !== "challenge") throw new Error(`expected a challenge, got ${frame.$case}`);
    return frame.value;
  }

  send(...frames: readonly Frame[]): void {
    this.socket.write(encode(...frames));
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}

/** A Hello that proves itself, with some fields changed: before the MAC is made, or after (`tampered`). */
export function helloTo(
  challenge: Challenge,
  changes: Partial<Hello> & { readonly secret?: Uint8Array; readonly exporter?: Uint8Array } = {},
  tampered: Partial<Hello> = {},
): Frame {
  const { secret: key = secret, exporter = new Uint8Array(0), ...fields } = changes;
  const hello = { ...identity, version: protocolConstants.version, nonce: helloNonce, capabilities: [], ...fields };
  const transcript = { ...hello, challengeNonce: challenge.nonce, helloNonce: hello.nonce, exporter };
  return { $case: "hello", value: { ...hello, mac: handshakeMac(key, "hello", transcript), ...tampered } };
}
