/**
 * A dialler that says whatever it is told to, on the foreign peer's wire: for what no honest peer would say.
 */
import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { FrameStream, macOf } from "./peer/node-wire.js";
import type { FrameJson, HelloJson } from "./peer/wire.js";

/** A connection to a listener, its Challenge received. */
export class RawDialler extends FrameStream implements Disposable {
  challenge: FrameJson = {};

  /** Connects and sends the preamble. */
  static async to(address: string, preamble: string | Uint8Array = "HWS1"): Promise<RawDialler> {
    const [host, port] = address.split(":") as [string, string];
    const dialler = new RawDialler(connect(Number(port), host), { awaitsPreamble: false });
    dialler.socket.write(preamble);
    return dialler;
  }

  /** The same, with the listener's Challenge. */
  static async challenged(address: string): Promise<RawDialler> {
    const dialler = await RawDialler.to(address);
    dialler.challenge = (await dialler.receive())?.["challenge"];
    return dialler;
  }

  /** Sends a Hello with a proof of what it says; `more` is said too, or instead, without being proved. */
  hello(secret: Uint8Array, fields: HelloJson, more: FrameJson = {}): FrameJson {
    const proved = { version: 1, ...fields, nonce: randomBytes(32).toString("base64") };
    const hello = { ...proved, mac: macOf(secret, "hello", this.challenge["nonce"], proved), ...more };
    this.send({ hello });
    return hello;
  }

  /** The rest of what comes: the kinds of its frames, or the code of a Refuse. */
  async rest(): Promise<string[]> {
    const come: string[] = [];
    for (let frame = await this.receive(); frame !== undefined; frame = await this.receive()) {
      come.push(frame["refuse"]?.["code"] ?? Object.keys(frame)[0]);
    }
    return come;
  }

  sendBytes(bytes: Uint8Array): void {
    this.socket.write(bytes);
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}
