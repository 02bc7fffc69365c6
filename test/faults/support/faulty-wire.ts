/**
 * The wire between a listener and those who dial it, which can do what networks do: swallow bytes in silence, in either
 * direction, and cut a connection in the middle of a frame.
 */
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { microseconds } from "./mesh-protocol.js";

/** Direction as seen by the dialler. */
type Direction = "forward" | "backward";

const preambleBytes = 4;
const lengthBytes = 4;
/** Maximum number of handshake frames in one direction. */
const handshakeFrames = 2;

/** A direction of a proxied connection. */
interface Lane {
  readonly from: Socket;
  readonly to: Socket;
  readonly frames: FramePlace;
}

/** A proxy in front of one listener. */
export class FaultyWire implements AsyncDisposable {
  /** Times at which the listener ended a connection by itself, in microseconds. */
  readonly endedByListener: number[] = [];
  readonly #server: Server;
  readonly #connections = new Set<Record<Direction, Lane>>();
  readonly #swallows: Record<Direction, boolean> = { forward: false, backward: false };
  #cut: { readonly direction: Direction; readonly done: (bytes: number) => void } | undefined;
  /** Port of the listener. */
  #port = 0;

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (near) => this.#join(near, connect(this.#port, "127.0.0.1")));
  }

  static async make(): Promise<FaultyWire> {
    const server = createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new FaultyWire(server);
  }

  /** The address at which the listener listens; nobody can dial it before. */
  leadTo(address: string): void {
    this.#port = Number(address.split(":")[1]);
  }

  /** Address that the listener is to publish. */
  get advertise(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Drops all further bytes in these directions, on new connections, too. An end of stream is dropped with the bytes. */
  swallow(...directions: readonly Direction[]): void {
    for (const direction of directions) this.#swallows[direction] = true;
  }

  /** Passes bytes again. All connections are reset, as bytes may be missing from their streams. */
  heal(): void {
    this.#swallows.forward = false;
    this.#swallows.backward = false;
    for (const connection of [...this.#connections]) this.#reset(connection);
  }

  /**
   * Waits for a frame, passes on a part of it, and resets the connection. Resolves with how many bytes of the frame
   * were passed on.
   */
  cutInFrame(direction: Direction): Promise<number> {
    return new Promise((done) => {
      this.#cut = { direction, done };
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const connection of [...this.#connections]) this.#reset(connection);
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #join(near: Socket, far: Socket): void {
    const connection = {
      forward: { from: near, to: far, frames: new FramePlace(preambleBytes) },
      backward: { from: far, to: near, frames: new FramePlace(0) },
    };
    this.#connections.add(connection);
    for (const socket of [near, far]) {
      socket.setNoDelay(true);
      socket.on("error", () => undefined);
    }
    far.on("close", () => {
      // If the dialler is still there, or stands still, the listener was the first.
      if (!near.destroyed && !near.readableEnded) this.endedByListener.push(microseconds());
      if (!this.#swallows.backward) near.destroy();
      if (near.destroyed) this.#connections.delete(connection);
    });
    near.on("close", () => {
      if (!this.#swallows.forward) far.destroy();
      if (far.destroyed) this.#connections.delete(connection);
    });
    for (const direction of ["forward", "backward"] as const) {
      const lane = connection[direction];
      lane.from.on("data", (chunk) => void this.#pass(connection, direction, chunk));
      lane.from.on("end", () => this.#swallows[direction] || lane.to.end());
    }
  }

  async #pass(connection: Record<Direction, Lane>, direction: Direction, chunk: Buffer): Promise<void> {
    if (this.#swallows[direction]) return;
    const { to, frames } = connection[direction];
    const cut = this.#cut;
    if (cut?.direction === direction) {
      const place = frames.insideOf(chunk);
      if (place !== undefined) {
        this.#cut = undefined;
        to.write(chunk.subarray(0, place.end));
        for (const { from } of Object.values(connection)) from.removeAllListeners("data").resume();
        // The pause lets the partial frame arrive: a reset may overtake bytes that the kernel has not handed over.
        await delay(20);
        this.#reset(connection);
        cut.done(place.bytes);
        return;
      }
    }
    frames.advance(chunk);
    to.write(chunk);
  }

  #reset(connection: Record<Direction, Lane>): void {
    for (const { from } of Object.values(connection)) from.resetAndDestroy();
    this.#connections.delete(connection);
  }
}

/** Position of a byte stream within its frames. */
class FramePlace {
  /** Bytes until the next frame begins; while the length is incomplete, what there is of it. */
  #left: number;
  #length: Buffer = Buffer.alloc(0);
  #frames = 0;

  constructor(preamble: number) {
    this.#left = preamble;
  }

  /** Takes a chunk. */
  advance(chunk: Buffer): void {
    let at = 0;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const step = Math.min(this.#left, chunk.length - at);
        this.#left -= step;
        at += step;
        continue;
      }
      const part = chunk.subarray(at, at + lengthBytes - this.#length.length);
      this.#length = Buffer.concat([this.#length, part]);
      at += part.length;
      if (this.#length.length < lengthBytes) return;
      this.#frames += 1;
      this.#left = this.#length.readUInt32BE();
      this.#length = Buffer.alloc(0);
    }
  }

  /**
   * A place in the chunk that is in the middle of a frame which begins in it, and how much of the frame comes before. Not
   * in the handshake: a connection that never was one is not told of.
   */
  insideOf(chunk: Buffer): { readonly end: number; readonly bytes: number } | undefined {
    if (this.#length.length > 0 || this.#frames < handshakeFrames) return undefined;
    const start = this.#left;
    if (start + lengthBytes >= chunk.length) return undefined;
    const length = chunk.readUInt32BE(start);
    const body = Math.min(length, chunk.length - start - lengthBytes);
    // Its length and the half of the rest; of a frame of one byte the length only.
    const bytes = lengthBytes + Math.floor(body / 2);
    return { end: start + bytes, bytes };
  }
}
