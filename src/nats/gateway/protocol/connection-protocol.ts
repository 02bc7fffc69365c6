/**
 * Protocol state machine of one client connection. Pure: chunks in, effects out, without socket and clock.
 *
 *     login ──▶ ready ◀──▶ answering ──▶ draining (the client reads slowly) ──▶ ready
 *       │ ▲        │           │             │
 *     securing     └───────────┴─────────────┴──▶ over
 *
 * Calls run one at a time: further data of the client waits, and is not read beyond a small amount. Only simple queries
 * are supported. A message of another type ends the session; a call that is too large gets an error, and the
 * session continues.
 */
import type { ServeSettings } from "../../../../generated/ts/settings/nats.js";
import { errorTable } from "../../../foundation/errors/index.js";
import { type Answer, type ErrorAnswer, errorAnswerOf } from "./answer.js";
import { answerBytes, errorResponse, readyForQuery, sessionEndNotification, sessionStart } from "./backend-messages.js";
import { Login, type LoginRules } from "./login.js";
import { MessageReader } from "./message-reader.js";

/** Side effects that the protocol requests on its connection. None is requested after `end` or `close`. */
export interface ConnectionEffects {
  /**
   * Writes bytes, which must not change afterwards.
   *
   * @returns false if nothing more should be written until `drained`
   */
  write(bytes: Uint8Array): boolean;
  /** Writes nothing more, and closes when everything is sent. */
  end(): void;
  /** Closes at once. */
  close(): void;
  /** Starts TLS; `secured` is called when it is established. */
  startTls(): void;
  /** Pauses or resumes reading. Data that arrives nevertheless is accepted. */
  setReading(reading: boolean): void;
  /** Admits an authenticated client. @returns error if the client gets no session */
  admit(): ErrorAnswer | undefined;
  /** Carries out a call. */
  answer(query: Uint8Array): Answer | Promise<Answer>;
  /** Reports an error that `answer` threw, which is sent to the client. The callee decides whether to log it. */
  answerFailed(error: unknown): void;
  /** Reports an error that ends the session. */
  refused(error: ErrorAnswer): void;
}

/** Limits of a session. */
export type ConnectionRules = LoginRules & Pick<ServeSettings, "maxRequestBytes">;

const queryType = "Q".charCodeAt(0);
const terminateType = "X".charCodeAt(0);
const syncType = "S".charCodeAt(0);
const flushType = "H".charCodeAt(0);

/** Number of bytes that are read from a session while a call of it runs: enough for a Terminate message of the client. */
const readAheadBytes = 64 * 1024;

/** Maximum body of a message in bytes, as of a Postgres value: just below 1 GiB. */
const maxMessageBytes = 0x3fffffff;

/** Protocol of one client connection: takes received chunks, and requests effects. */
export class ConnectionProtocol {
  readonly #reader = new MessageReader();
  readonly #login: Login;
  #state: "login" | "securing" | "ready" | "answering" | "draining" | "over" = "login";
  /** Answer to the next call, which ends the connection; undefined while calls are accepted. */
  #stopReason: ErrorAnswer | undefined;
  #reading = true;

  readonly #rules: ConnectionRules;
  readonly #effects: ConnectionEffects;

  constructor(rules: ConnectionRules, effects: ConnectionEffects) {
    this.#rules = rules;
    this.#effects = effects;
    this.#login = new Login(rules);
  }

  /** True while a call is running. */
  get isAnswering(): boolean {
    return this.#state === "answering";
  }

  get isOver(): boolean {
    return this.#state === "over";
  }

  /** Processes a chunk, which the session owns from now on. */
  receive(chunk: Uint8Array): void {
    if (this.#state === "over") return;
    // A correct client sends no plaintext while TLS starts; it would be mistaken for data received through TLS.
    if (this.#state === "securing") {
      this.fail(violation("plaintext arrived while TLS was being established"));
    } else {
      this.#reader.push(chunk);
      this.#run();
    }
  }

  /**
   * Continues the login after TLS is established: chunks are decrypted from now on.
   *
   * @param certificate DER certificate that the client was shown
   */
  secured(certificate: Uint8Array): void {
    if (this.#state !== "securing") return;
    this.#state = "login";
    this.#login.secured(certificate);
  }

  /** Continues after the client has read enough, so that writing is possible again. */
  drained(): void {
    if (this.#state !== "draining") return;
    this.#state = "ready";
    this.#run();
  }

  /**
   * Accepts no more calls: the next one is answered with `reason`, which ends the session. {@link endIfIdle} ends it
   * without a call.
   */
  endAfterCall(reason: ErrorAnswer): void {
    if (this.#state === "login" || this.#state === "securing") this.fail(reason);
    else this.#stopReason = reason;
  }

  /** Ends a session after {@link endAfterCall}, unless a call is running. */
  endIfIdle(): void {
    if (this.#state === "ready" && this.#stopReason !== undefined) this.fail(this.#stopReason);
  }

  /** Ends the session with `reason` now; a running call gets it as its answer. */
  fail(reason: ErrorAnswer): void {
    if (this.#state === "over") return;
    const state = this.#state;
    this.#over();
    this.#effects.refused(reason);
    if (state === "securing") {
      this.#effects.close();
    } else {
      const error = errorResponse("FATAL", reason);
      // A call in transit gets the error as its answer. dblink reports the last result of a call: without ReadyForQuery,
      // that would be the loss of the connection. A call that is sent after the error has arrived, but before the
      // connection is closed, gets no answer; the notification shows its caller that it was not carried out. The
      // notification is last, so that a caller that has received it also has the answer to the previous call.
      this.#effects.write(state === "login" ? error : Buffer.concat([error, readyForQuery, sessionEndNotification]));
      this.#effects.end();
    }
  }

  /** Ends the session of a closed connection. */
  closed(): void {
    this.#over();
  }

  #over(): void {
    this.#state = "over";
    this.#reader.clear();
  }

  #run(): void {
    while (this.#state === "login") if (!this.#stepLogin()) return;
    while (this.#state === "ready") if (!this.#stepReady()) break;
    if (this.#state === "over") return;
    const reading = this.#state === "ready" || this.#reader.bufferedBytes <= readAheadBytes;
    if (reading !== this.#reading) {
      this.#reading = reading;
      this.#effects.setReading(reading);
    }
  }

  /** @returns false if no step is possible now */
  #stepLogin(): boolean {
    const step = this.#login.next(this.#reader);
    if (step === undefined) return false;
    switch (step.kind) {
      case "reply":
        this.#effects.write(step.bytes);
        break;
      case "secure":
        this.#state = "securing";
        this.#effects.write(step.bytes);
        this.#effects.startTls();
        break;
      case "done":
        this.#startSession(step.bytes);
        break;
      case "refuse":
        this.fail(step.error);
        break;
      case "close":
        this.#over();
        this.#effects.close();
        break;
    }
    return true;
  }

  #startSession(bytes: Buffer): void {
    const refusal = this.#effects.admit();
    if (refusal === undefined) {
      this.#state = "ready";
      this.#effects.write(Buffer.concat([bytes, sessionStart]));
    } else {
      this.fail(refusal);
    }
  }

  /** @returns false if no step is possible now */
  #stepReady(): boolean {
    const reader = this.#reader;
    if (!reader.readHeader()) return false;
    const { type, bodyBytes } = reader;
    if (type !== queryType) return this.#onOtherMessage(type, bodyBytes);
    if (bodyBytes < 1 || bodyBytes > maxMessageBytes) {
      this.fail(violation(`a query message cannot have a body of ${bodyBytes} bytes`));
      return true;
    }
    const queryBytes = bodyBytes - 1;
    if (queryBytes > this.#rules.maxRequestBytes) {
      if (!reader.skipBody()) return false;
      this.#write(answerBytes(tooLarge(queryBytes, this.#rules.maxRequestBytes)));
      return true;
    }
    const body = reader.readBody();
    if (body === undefined) return false;
    if (body.indexOf(0) === queryBytes) this.#call(body.subarray(0, queryBytes));
    else this.fail(violation("a query must end with its only NUL"));
    return true;
  }

  #onOtherMessage(type: number, bodyBytes: number): boolean {
    if (bodyBytes !== 0 || (type !== terminateType && type !== syncType && type !== flushType)) {
      const shown = type > 0x20 && type < 0x7f ? `"${String.fromCharCode(type)}"` : `0x${type.toString(16)}`;
      this.fail(violation(`the gateway supports only simple queries, and received a message of type ${shown}`));
      return true;
    }
    this.#reader.readBody();
    if (type === syncType) this.#write(readyForQuery);
    if (type === terminateType) {
      this.#over();
      this.#effects.end();
    }
    return true;
  }

  #call(query: Uint8Array): void {
    if (this.#stopReason !== undefined) {
      this.fail(this.#stopReason);
      return;
    }
    this.#state = "answering";
    try {
      const answer = this.#effects.answer(query);
      if (answer instanceof Promise) answer.then(this.#onAnswer, this.#onRejection);
      else this.#writeAnswer(answer);
    } catch (error) {
      this.#answerError(error);
    }
  }

  readonly #onAnswer = (answer: Answer): void => {
    this.#writeAnswer(answer);
    this.#run();
  };

  readonly #onRejection = (error: unknown): void => {
    this.#answerError(error);
    this.#run();
  };

  #answerError(error: unknown): void {
    this.#effects.answerFailed(error);
    this.#writeAnswer(errorAnswerOf(error));
  }

  #writeAnswer(answer: Answer): void {
    if (this.#state !== "answering") return;
    this.#state = "ready";
    this.#write(answerBytes(answer));
  }

  #write(bytes: Uint8Array): void {
    if (!this.#effects.write(bytes)) this.#state = "draining";
  }
}

function violation(message: string): ErrorAnswer {
  const { sqlstate, remedy } = errorTable.gateway_protocol;
  return { kind: "error", sqlstate, message, hint: remedy };
}

function tooLarge(bytes: number, maxRequestBytes: number): ErrorAnswer {
  const { sqlstate } = errorTable.gateway_limit;
  const message = `the encoded call has ${bytes} bytes, and the limit is ${maxRequestBytes}`;
  const hint = "Send less at once, or start `hawser serve` with a greater --tune maxRequestBytes.";
  return { kind: "error", sqlstate, message, hint };
}
