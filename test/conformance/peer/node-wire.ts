/**
 * The wire of docs/protocol.md on `node:net`, with protobuf-es for the frames. It has nothing of the project's own code.
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { connect, createServer, type Server, type Socket } from "node:net";
import { fromBinary, fromJson, toBinary, toJson } from "@bufbuild/protobuf";
import { FrameSchema } from "../../../generated/ts/es/hawser/peer/v1/frames_pb.js";
import { Inbox } from "./inbox.js";
import type { Decision, Dialled, FrameJson, HelloJson, Wire, WireConnection } from "./wire.js";

const preamble = Buffer.from("HWS1");
const labels = { hello: "hawser/1 hello", welcome: "hawser/1 welcome" } as const;

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** MAC with which a side proves itself. `hello` is the Hello's fields, its nonce in base64 among them. */
function macOf(secret: Uint8Array, direction: keyof typeof labels, challengeNonce: string, hello: FrameJson): string {
  const epoch = Buffer.alloc(8);
  epoch.writeBigUInt64BE(BigInt(hello["epoch"]));
  const parts = [
    Buffer.from(labels[direction]),
    Buffer.from(challengeNonce, "base64"),
    Buffer.from(hello["nonce"], "base64"),
    Buffer.from(hello["senderName"]),
    Buffer.from(hello["sourceTopic"]),
    Buffer.from(hello["listenerName"]),
    uint32(hello["channelId"]),
    epoch,
    uint32(hello["version"]),
    Buffer.alloc(0),
  ];
  const mac = createHmac("sha256", secret);
  for (const part of parts) mac.update(uint32(part.length)).update(part);
  return mac.digest("base64");
}

/** Makes a frame's body of its fields. */
export type EncodeBody = (frame: FrameJson) => Uint8Array;

/** The body as this version has it. */
const encodeBody: EncodeBody = (frame) => toBinary(FrameSchema, fromJson(FrameSchema, frame as never));

/** Protocol details of a {@link NodeWire}: by default those of version 1. */
export interface NodeWireOptions {
  /** The versions that it offers as a listener, and takes as a dialler. */
  readonly versions?: { readonly min: number; readonly max: number };
  readonly capabilities?: readonly string[];
  /** For frames with more in them than this version knows. */
  readonly encodeBody?: EncodeBody;
}

/** A socket that speaks frames. */
export class FrameStream implements WireConnection {
  readonly #frames = new Inbox<FrameJson>();
  #bytes = Buffer.alloc(0);
  #awaitsPreamble: boolean;
  readonly #encodeBody: EncodeBody;
  readonly #kinds: Set<string> | undefined;

  readonly socket: Socket;

  constructor(
    socket: Socket,
    options: {
      readonly awaitsPreamble: boolean;
      readonly encodeBody?: EncodeBody | undefined;
      /** Gets the kinds of the frames that come. */
      readonly kinds?: Set<string>;
    },
  ) {
    this.socket = socket;
    this.#awaitsPreamble = options.awaitsPreamble;
    this.#encodeBody = options.encodeBody ?? encodeBody;
    this.#kinds = options.kinds;
    socket.setNoDelay();
    socket.on("data", (chunk) => this.#read(chunk));
    socket.on("error", () => undefined);
    socket.on("close", () => this.#frames.end());
  }

  send(frame: FrameJson): void {
    this.sendBody(this.#encodeBody(frame));
  }

  /** Sends what need not be a frame, with a length prefix. */
  sendBody(body: Uint8Array): void {
    this.socket.write(Buffer.concat([uint32(body.length), body]));
  }

  async receive(): Promise<FrameJson | undefined> {
    for (;;) {
      const frame = await this.#frames.next();
      if (frame?.["ping"] === undefined) return frame;
      this.send({ pong: frame["ping"] });
    }
  }

  end(): void {
    this.socket.end();
  }

  /** Tells why, and closes. */
  refuse(code: string, message: string): void {
    this.send({ refuse: { code, message } });
    this.socket.end();
  }

  #read(chunk: Buffer): void {
    this.#bytes = Buffer.concat([this.#bytes, chunk]);
    if (this.#awaitsPreamble) {
      if (this.#bytes.length < preamble.length) return;
      if (!this.#bytes.subarray(0, preamble.length).equals(preamble)) {
        this.socket.destroy();
        return;
      }
      this.#bytes = this.#bytes.subarray(preamble.length);
      this.#awaitsPreamble = false;
    }
    while (this.#bytes.length >= 4) {
      const end = 4 + this.#bytes.readUInt32BE(0);
      if (this.#bytes.length < end) return;
      const frame = fromBinary(FrameSchema, this.#bytes.subarray(4, end));
      this.#bytes = this.#bytes.subarray(end);
      if (frame.kind.case !== undefined) this.#kinds?.add(frame.kind.case);
      this.#frames.push(toJson(FrameSchema, frame) as FrameJson);
    }
  }
}

/** The wire in this process. */
export class NodeWire implements Wire {
  readonly #sockets = new Set<Socket>();
  readonly #servers: Server[] = [];
  readonly #versions: { readonly min: number; readonly max: number };
  readonly #capabilities: readonly string[];
  readonly #encodeBody: EncodeBody | undefined;
  /** The codes with which diallers refused this listener. */
  readonly refusals: string[] = [];
  /** The kinds of all frames that came. */
  readonly kinds = new Set<string>();

  constructor(options: NodeWireOptions = {}) {
    this.#versions = options.versions ?? { min: 1, max: 1 };
    this.#capabilities = options.capabilities ?? ["CAPABILITY_GZIP"];
    this.#encodeBody = options.encodeBody;
  }

  async dial({ address, secret, hello }: Parameters<Wire["dial"]>[0]): Promise<Dialled> {
    const [host, port] = address.split(":") as [string, string];
    const socket = this.#keep(connect(Number(port), host));
    const stream = new FrameStream(socket, { awaitsPreamble: false, encodeBody: this.#encodeBody, kinds: this.kinds });
    socket.write(preamble);
    const challenge = (await stream.receive())?.["challenge"];
    if (challenge === undefined) return { refused: undefined };
    const { min, max } = this.#versions;
    if (challenge["minVersion"] > max || challenge["maxVersion"] < min) {
      stream.refuse("ERROR_CODE_UNSUPPORTED_VERSION", `this peer speaks versions ${min} to ${max}`);
      return { refused: "ERROR_CODE_UNSUPPORTED_VERSION" };
    }
    // The newest that both speak.
    const version = Math.min(max, challenge["maxVersion"]);
    const capabilities = this.#capabilities;
    const fields = { version, capabilities, ...hello, nonce: randomBytes(32).toString("base64") };
    stream.send({ hello: { ...fields, mac: macOf(secret, "hello", challenge["nonce"], fields) } });
    const { welcome, refuse } = (await stream.receive()) ?? {};
    if (welcome === undefined) return { refused: refuse?.["code"] };
    if (!equal(welcome["mac"], macOf(secret, "welcome", challenge["nonce"], fields))) {
      stream.refuse("ERROR_CODE_UNAUTHENTICATED", "the listener did not prove that it knows the mesh secret");
      return { refused: "ERROR_CODE_UNAUTHENTICATED" };
    }
    return { connection: stream, welcome };
  }

  async listen(options: Parameters<Wire["listen"]>[0]): Promise<string> {
    const server = createServer((socket) => void this.#accept(this.#keep(socket), options));
    this.#servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return `127.0.0.1:${(server.address() as { port: number }).port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#servers) server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  async #accept(
    socket: Socket,
    { listenerName, secrets, decide, onConnection }: Parameters<Wire["listen"]>[0],
  ): Promise<void> {
    const stream = new FrameStream(socket, { awaitsPreamble: true, encodeBody: this.#encodeBody, kinds: this.kinds });
    const nonce = randomBytes(32).toString("base64");
    const capabilities = this.#capabilities;
    const versions = this.#versions;
    stream.send({ challenge: { nonce, minVersion: versions.min, maxVersion: versions.max, capabilities } });
    const { hello, refuse } = (await stream.receive()) ?? {};
    if (refuse !== undefined) this.refusals.push(refuse["code"]);
    if (hello === undefined) return stream.end();
    const secret = secrets.find((one) => equal(hello["mac"], macOf(one, "hello", nonce, hello)));
    if (secret === undefined) return stream.refuse("ERROR_CODE_UNAUTHENTICATED", "no proof");
    if (hello["version"] < versions.min || hello["version"] > versions.max)
      return stream.refuse("ERROR_CODE_UNSUPPORTED_VERSION", "not offered");
    if (hello["listenerName"] !== listenerName)
      return stream.refuse("ERROR_CODE_WRONG_PEER", `this is ${listenerName}`);
    const decision: Decision = await decide(hello as HelloJson);
    if ("refuse" in decision) return stream.refuse(decision.refuse.code, decision.refuse.message);
    const mac = macOf(secret, "welcome", nonce, hello);
    stream.send({ welcome: { ...decision.welcome, capabilities, mac } });
    onConnection(hello as HelloJson, stream);
  }

  #keep(socket: Socket): Socket {
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    return socket;
  }
}

function equal(a: string, b: string): boolean {
  const [left, right] = [Buffer.from(a, "base64"), Buffer.from(b, "base64")];
  return left.length === right.length && timingSafeEqual(left, right);
}
