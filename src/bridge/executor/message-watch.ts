/**
 * Looks at what Postgres sends before the driver does, for two things that the driver cannot say.
 *
 * How long a message is: a function can make its error or its answer almost a gigabyte long; the driver keeps all of it and
 * makes it a string, which ends the process where it is longer than a string can be.
 *
 * Whether an error ends the session: the driver gives its severity in the language of `lc_messages` alone.
 */
import type { Duplex } from "node:stream";

/** Of each message of Postgres's protocol: its type, and its length without that, as u32 big-endian. */
const headBytes = 5;

/** The type of an ErrorResponse, "E". */
const errorType = 0x45;

/** Where the severity is found in an error: it comes first, in both forms. */
const severityBytes = 256;

/** See above. */
export class MessageWatch {
  readonly #stream: Duplex;
  readonly #maxBytes: number;
  readonly #head = Buffer.alloc(headBytes);
  #headHas = 0;
  /** Of the message that is being read. */
  #left = 0;
  readonly #error = Buffer.alloc(severityBytes);
  #errorHas = 0;
  #isEnding = false;

  /**
   * Ends the connection, with an error that says so, before the driver keeps a message that is too long. To be made between
   * two messages, and after TLS has been agreed on.
   */
  constructor(stream: Duplex, maxBytes: number) {
    this.#stream = stream;
    this.#maxBytes = maxBytes;
    stream.prependListener("data", (chunk: Buffer) => this.#read(chunk));
  }

  /** Postgres has said that it ends the session: known before the driver tells of that error. */
  get isEnding(): boolean {
    return this.#isEnding;
  }

  #read(chunk: Buffer): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.#left > 0) {
        const passed = Math.min(this.#left, chunk.length - at);
        if (this.#head[0] === errorType) this.#errorHas += chunk.copy(this.#error, this.#errorHas, at, at + passed);
        this.#left -= passed;
        at += passed;
        if (this.#left === 0 && this.#head[0] === errorType) this.#endError();
        continue;
      }
      const taken = chunk.copy(this.#head, this.#headHas, at, at + headBytes - this.#headHas);
      this.#headHas += taken;
      at += taken;
      if (this.#headHas < headBytes) return;
      this.#headHas = 0;
      this.#left = this.#head.readUInt32BE(1) - (headBytes - 1);
      if (this.#left > this.#maxBytes) {
        const message = `a function gave an error or an answer of ${this.#left} bytes, and at most ${this.#maxBytes} are taken: its session was ended`;
        this.#stream.destroy(new Error(message));
        return;
      }
    }
  }

  #endError(): void {
    const severity = severityOf(this.#error.subarray(0, this.#errorHas));
    this.#errorHas = 0;
    if (severity === "FATAL" || severity === "PANIC") this.#isEnding = true;
  }
}

/** Of an error, by the beginning of its fields: each is a letter and a text that ends with NUL. */
function severityOf(fields: Buffer): string | undefined {
  let localized: string | undefined;
  for (let at = 0; at < fields.length; ) {
    const end = fields.indexOf(0, at);
    if (end <= at) break;
    const field = fields.toString("latin1", at, at + 1);
    const text = fields.toString("latin1", at + 1, end);
    if (field === "V") return text;
    if (field === "S") localized = text;
    at = end + 1;
  }
  // What stands between us and Postgres may leave out the other one; then it speaks English.
  return localized;
}
