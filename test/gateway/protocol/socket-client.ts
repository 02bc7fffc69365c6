/**
 * A client on a socket, by hand: does what no good one would, and sees what comes back.
 */
import { connect, type Socket } from "node:net";
import {
  type BackendMessage,
  backendMessages,
  clientFinal,
  query,
  saslInitial,
  saslResponse,
} from "./frontend-messages.js";
import { password } from "./test-server.js";
import { clientFirst, goodStartup } from "./test-session.js";

/** Errors of the socket are taken for its end. */
export class SocketClient implements Disposable {
  readonly closed: Promise<void>;
  /** Messages that have come and were not taken. */
  readonly messages: BackendMessage[] = [];
  /** Number of answers to encryption requests that precede typed messages. */
  encryptionAnswers = 0;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  /** From how many bytes on it is worth looking for whole messages. */
  #neededBytes = 0;
  #wake = (): void => {};
  #isClosed = false;

  readonly socket: Socket;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      this.#received.push(chunk);
      this.#receivedBytes += chunk.length;
      if (this.#receivedBytes >= this.#neededBytes) this.#takeApart();
      this.#wake();
    });
    this.closed = new Promise((resolve) =>
      socket.once("close", () => {
        this.#isClosed = true;
        this.#wake();
        resolve();
      }),
    );
  }

  static async connect(port: number, options: { readonly allowHalfOpen?: boolean } = {}): Promise<SocketClient> {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true, ...options });
    const client = new SocketClient(socket);
    await Promise.race([new Promise((resolve) => socket.once("connect", resolve)), client.closed]);
    return client;
  }

  static async loggedIn(port: number, options: { readonly allowHalfOpen?: boolean } = {}): Promise<SocketClient> {
    const client = await SocketClient.connect(port, options);
    await client.logIn();
    return client;
  }

  /** @throws Error if the server says no */
  async logIn(): Promise<void> {
    this.socket.write(goodStartup);
    await this.next("R");
    this.socket.write(saslInitial(clientFirst));
    const { body } = await this.next("R");
    this.socket.write(saslResponse(clientFinal(clientFirst, body.toString("utf8", 4), password)));
    await this.next("Z");
  }

  /** Asks and takes what comes up to ReadyForQuery. @returns the types of the messages */
  async ask(text: string): Promise<string> {
    this.socket.write(query(text));
    await this.next("Z");
    return this.taken;
  }

  /** The types of the messages that the last `next` took. */
  taken = "";

  /** Takes messages up to the first of a type. @throws Error if the connection ends before */
  async next(type: string): Promise<BackendMessage> {
    this.taken = "";
    for (;;) {
      for (let message = this.messages.shift(); message !== undefined; message = this.messages.shift()) {
        this.taken += message.type;
        if (message.type === type) return message;
      }
      if (this.#isClosed) throw new Error(`the connection ended, and no ${type} had come`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #takeApart(): void {
    const { messages, rest } = backendMessages(Buffer.concat(this.#received), this.encryptionAnswers);
    if (messages.length > 0) this.encryptionAnswers = 0;
    this.messages.push(...messages);
    this.#received = [rest];
    this.#receivedBytes = rest.length;
    this.#neededBytes = rest.length >= 5 ? rest.readInt32BE(1) + 1 : 0;
  }

  [Symbol.dispose](): void {
    this.socket.destroy();
  }
}
