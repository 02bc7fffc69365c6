/**
 * Looks at what Postgres sends before the driver does, for what the driver cannot say.
 *
 * How long a message is: a function can make its error or its answer almost a gigabyte long; the driver keeps all of it and
 * makes it a string, which ends the process where it is longer than a string can be.
 *
 * How much nobody has asked for: a function that sends notices in a loop would keep the process busy with reading them.
 *
 * Whether an error ends the session: the driver gives its severity in the language of `lc_messages` alone.
 */
import type { Duplex } from "node:stream";

/** Of each message of Postgres's protocol: its type, and its length without that, as u32 big-endian. */
const headBytes = 5;

/** The type of an ErrorResponse, "E". */
const errorType = 0x45;

/** The types of a notice, a notification and the change of a parameter: "N", "A", "S". */
const unaskedTypes: ReadonlySet<number | undefined> = new Set([0x4e, 0x41, 0x53]);

/** Where severity and SQLSTATE are found in an error: they come first. */
const severityBytes = 256;

/** See above. */
export class MessageWatch {
  readonly #stream: Duplex;
  readonly #maxBytes: number;
  readonly #maxUnaskedBytes: number;
  #unaskedBytes = 0;
  readonly #head = Buffer.alloc(headBytes);
  #headHas = 0;
  /** Of the message that is being read. */
  #left = 0;
  readonly #error = Buffer.alloc(severityBytes);
  #errorHas = 0;
  #endCode: string | undefined;

  /**
   * Ends the connection, with an error that says so, before the driver keeps a message that is too long, and where more than
   * `maxUnaskedBytes` come in a transaction that were not asked for. To be made between two messages, and after TLS has been
   * agreed on.
   */
  constructor(stream: Duplex, maxBytes: number, maxUnaskedBytes: number) {
    this.#stream = stream;
    this.#maxBytes = maxBytes;
    this.#maxUnaskedBytes = maxUnaskedBytes;
    stream.prependListener("data", (chunk: Buffer) => this.#read(chunk));
  }

  /** Postgres has said that it ends the session: known before the driver tells of that error. */
  get isEnding(): boolean {
    return this.#endCode !== undefined;
  }

  /** The SQLSTATE of that; empty: it has none. */
  get endCode(): string | undefined {
    return this.#endCode;
  }

  /** A transaction begins. */
  begin(): void {
    this.#unaskedBytes = 0;
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
        this.#refuse(`an error or an answer of ${this.#left} bytes, and at most ${this.#maxBytes} are taken`);
        return;
      }
      if (!unaskedTypes.has(this.#head[0])) continue;
      this.#unaskedBytes += headBytes + this.#left;
      if (this.#unaskedBytes > this.#maxUnaskedBytes) {
        this.#refuse(`more than ${this.#maxUnaskedBytes} bytes of notices and notifications`);
        return;
      }
    }
  }

  #refuse(what: string): void {
    this.#stream.destroy(new Error(`a function gave ${what}: its session was ended`));
  }

  #endError(): void {
    const fields = fieldsOf(this.#error.subarray(0, this.#errorHas));
    this.#errorHas = 0;
    // What stands between us and Postgres may leave out the one for programs; then it speaks English.
    const severity = fields.get("V") ?? fields.get("S");
    if (severity === "FATAL" || severity === "PANIC") this.#endCode = fields.get("C") ?? "";
  }
}

/** Those of an error that are there whole: each is a letter and a text that ends with NUL. */
function fieldsOf(beginning: Buffer): Map<string, string> {
  const fields = new Map<string, string>();
  for (let at = 0; at < beginning.length; ) {
    const end = beginning.indexOf(0, at);
    if (end <= at) break;
    fields.set(beginning.toString("latin1", at, at + 1), beginning.toString("latin1", at + 1, end));
    at = end + 1;
  }
  return fields;
}
