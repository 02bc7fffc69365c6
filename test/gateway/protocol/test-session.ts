/**
 * The pure session with its effects written down, and a client to drive it.
 */
import {
  type ConnectionEffects,
  ConnectionProtocol,
  type ConnectionRules,
} from "../../../src/nats/gateway/protocol/connection-protocol.js";
import type { Answer, ErrorAnswer } from "../../../src/nats/gateway/protocol/index.js";
import { type ScramVerifier, scramVerifierOf } from "../../../src/nats/gateway/protocol/scram.js";
import {
  type BackendMessage,
  backendMessages,
  clientFinal,
  saslInitial,
  saslResponse,
  startup,
} from "./frontend-messages.js";
import { database, password, user } from "./test-server.js";

const clientNonce = "fyko+d2lbbFgONRv9qkxdawL";
export const clientFirst = `n,,n=,r=${clientNonce}`;
export const goodStartup = startup({ user, database });

/** Stands for the DER of our own certificate. */
export const certificate = Buffer.alloc(900, "certificate");

/** Derived once for all: its cost is no matter of these tests. */
export const verifier: ScramVerifier = await scramVerifierOf(password, 4096, Buffer.alloc(16, 7));

/** Rules with a nonce that does not change, so that two runs give the same bytes. */
export function testRules(changes: Partial<ConnectionRules> = {}): ConnectionRules {
  return {
    user,
    database,
    verifier,
    mockSecret: Buffer.alloc(32, 1),
    serverNonce: () => "3rfcNHYJY1ZVvWVs7j",
    tls: false,
    maxStartupBytes: 1000,
    maxRequestBytes: 2000,
    ...changes,
  };
}

export class TestSession implements ConnectionEffects {
  readonly session: ConnectionProtocol;
  readonly queries: Buffer[] = [];
  readonly refusals: ErrorAnswer[] = [];
  readonly failures: unknown[] = [];
  isAdmitted = false;
  over: "ended" | "closed" | undefined;
  tlsBegun = false;
  reading = true;
  /** Result of `write`. */
  hasRoom = true;
  /** Number of the server's bytes that precede typed messages. */
  encryptionAnswers = 0;
  readonly #written: Buffer[] = [];

  readonly #answering: (query: Uint8Array) => Answer | Promise<Answer>;

  constructor(
    rules: ConnectionRules = testRules(),
    answering: (query: Uint8Array) => Answer | Promise<Answer> = (query) => ({
      kind: "row",
      value: Buffer.from(query).toString("hex"),
    }),
  ) {
    this.#answering = answering;
    this.session = new ConnectionProtocol(rules, this);
  }

  /** Everything that was written. */
  get output(): Buffer {
    return Buffer.concat(this.#written);
  }

  get messages(): BackendMessage[] {
    const { messages, rest } = backendMessages(this.output, this.encryptionAnswers);
    if (rest.length > 0) throw new Error("the server wrote half a message");
    return messages;
  }

  /** The types of the messages, one letter each. */
  get types(): string {
    return this.messages.map(({ type }) => type).join("");
  }

  /** Sends everything at once, as a chunk of its own as sockets give it. */
  send(...parts: readonly Uint8Array[]): void {
    this.session.receive(new Uint8Array(Buffer.concat(parts)));
  }

  /** Logs in, and forgets what was written. */
  logIn(): this {
    this.send(goodStartup);
    this.send(saslInitial(clientFirst));
    this.send(this.proof());
    if (!this.isAdmitted) throw new Error("the login failed");
    this.forget();
    return this;
  }

  /** The final message for the server's first one, which must have been written last. */
  proof(secret = password, first = clientFirst, bound = Buffer.alloc(0)): Buffer {
    return saslResponse(clientFinal(first, this.messages.at(-1)!.body.toString("utf8", 4), secret, bound));
  }

  forget(): void {
    this.#written.length = 0;
    this.encryptionAnswers = 0;
  }

  write(bytes: Uint8Array): boolean {
    this.#mustBeOpen("write");
    this.#written.push(Buffer.from(bytes));
    return this.hasRoom;
  }

  end(): void {
    this.#mustBeOpen("end");
    this.over = "ended";
  }

  close(): void {
    this.#mustBeOpen("close");
    this.over = "closed";
  }

  startTls(): void {
    this.#mustBeOpen("startTls");
    this.tlsBegun = true;
  }

  setReading(reading: boolean): void {
    this.#mustBeOpen("setReading");
    this.reading = reading;
  }

  admit(): ErrorAnswer | undefined {
    this.#mustBeOpen("admit");
    if (this.isAdmitted) throw new Error("admitted twice");
    this.isAdmitted = true;
    return undefined;
  }

  answer(query: Uint8Array): Answer | Promise<Answer> {
    this.#mustBeOpen("answer");
    if (!this.isAdmitted) throw new Error("a call was carried out for a stranger");
    this.queries.push(Buffer.from(query));
    return this.#answering(query);
  }

  answerFailed(error: unknown): void {
    this.failures.push(error);
  }

  refused(error: ErrorAnswer): void {
    this.refusals.push(error);
  }

  #mustBeOpen(effect: string): void {
    if (this.over !== undefined) throw new Error(`${effect} after the session was ${this.over}`);
  }
}
