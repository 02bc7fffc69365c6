/**
 * The server's side of one client connection. Pure: chunks in, effects out; knows no socket and no clock.
 *
 *     login ──▶ ready ◀──▶ answering ──▶ draining (the client is slow to read) ──▶ ready
 *       │ ▲        │           │             │
 *     securing     └───────────┴─────────────┴──▶ over
 *
 * One call at a time: what a client sends while one is under way waits, and is not even read beyond a little. Only the
 * simple query is spoken. A message of another kind ends the session; a call that is too large ends only itself.
 */
import { gatewayConstants, type ServeSettings } from "../../../generated/ts/settings/nats.js";
import { errorTable } from "../../errors/index.js";
import { type Answer, type ErrorAnswer, errorAnswerOf } from "./answer.js";
import { answerBytes, errorResponse, readyForQuery, sessionBegins, sessionEnds } from "./backend-messages.js";
import { Login, type LoginRules } from "./login.js";
import { MessageReader } from "./message-reader.js";

/** What the protocol has done on its connection. Nothing is called after `end` or `close`. */
export interface ConnectionEffects {
  /** Writes; what is written must not change. @returns false if nothing more should be written until `drained` */
  write(bytes: Uint8Array): boolean;
  /** Writes nothing more, and closes when what was written has left. */
  end(): void;
  /** Closes at once. */
  close(): void;
  /** Begins TLS; `secured` when it is there. */
  startTls(): void;
  /** Stops or goes on reading. What is read all the same is taken. */
  setReading(reading: boolean): void;
  /** The client has proved itself. @returns why it cannot have a session all the same */
  admit(applicationName: string): ErrorAnswer | undefined;
  /** Carries a call out. */
  answer(query: Uint8Array): Answer | Promise<Answer>;
  /** What `answer` threw is told to the client; whether it is logged, too, is decided here. */
  answerFailed(error: unknown): void;
  /** The session ends because of this. */
  refused(error: ErrorAnswer): void;
}

/** The limits of a session. */
export type ConnectionRules = LoginRules & Pick<ServeSettings, "maxRequestBytes">;

const queryType = "Q".charCodeAt(0);
const terminateType = "X".charCodeAt(0);
const syncType = "S".charCodeAt(0);
const flushType = "H".charCodeAt(0);

/** Enough for a client to say that it goes. */
const { readAheadBytes } = gatewayConstants;

/** No message can be larger than what Postgres can hold, 1 GiB: it is noise. */
const maxMessageBytes = 0x3fffffff;

/** The protocol on one client connection: takes what arrives, and has its effects carried out. */
export class ConnectionProtocol {
  readonly #reader = new MessageReader();
  readonly #login: Login;
  #state: "login" | "securing" | "ready" | "answering" | "draining" | "over" = "login";
  /** The connection is to end: the answer to the next call, which ends it. */
  #stopReason: ErrorAnswer | undefined;
  #reading = true;

  readonly #rules: ConnectionRules;
  readonly #effects: ConnectionEffects;

  constructor(rules: ConnectionRules, effects: ConnectionEffects) {
    this.#rules = rules;
    this.#effects = effects;
    this.#login = new Login(rules);
  }

  /** A call is under way. */
  get isAnswering(): boolean {
    return this.#state === "answering";
  }

  get isOver(): boolean {
    return this.#state === "over";
  }

  /** Takes what arrived. The chunk belongs to the session from now on. */
  receive(chunk: Uint8Array): void {
    if (this.#state === "over") return;
    // Nobody sends plaintext while TLS begins, and it would be taken for what comes through TLS.
    if (this.#state === "securing") {
      this.fail(violation("plaintext came while TLS was being established"));
    } else {
      this.#reader.push(chunk);
      this.#run();
    }
  }

  /** TLS has been established; what is received from now on came through it. @param certificate DER: ours, as shown */
  secured(certificate: Uint8Array): void {
    if (this.#state !== "securing") return;
    this.#state = "login";
    this.#login.secured(certificate);
  }

  /** Writing is possible again. */
  drained(): void {
    if (this.#state !== "draining") return;
    this.#state = "ready";
    this.#run();
  }

  /**
   * Carries out nothing more: the next call gets `reason` as its answer, and ends the session. `part` ends it without one.
   */
  leave(reason: ErrorAnswer): void {
    if (this.#state === "login" || this.#state === "securing") this.fail(reason);
    else this.#stopReason = reason;
  }

  /** Ends a session that is to leave, unless a call is under way. */
  part(): void {
    if (this.#state === "ready" && this.#stopReason !== undefined) this.fail(this.#stopReason);
  }

  /** Ends the session with `reason`, now; a call under way gets it as its answer. */
  fail(reason: ErrorAnswer): void {
    if (this.#state === "over") return;
    const state = this.#state;
    this.#over();
    this.#effects.refused(reason);
    if (state === "securing") {
      this.#effects.close();
    } else {
      const error = errorResponse("FATAL", reason);
      // A call that is on its way now has the error as its answer: to dblink the last result is what counts, and without
      // ReadyForQuery that would be the end of the connection. One that is sent when this has arrived, and before the
      // connection has ended, gets no answer: by the notification its caller knows that it was not carried out. The
      // notification comes last: a caller that has it also has the answer to the call before.
      this.#effects.write(state === "login" ? error : Buffer.concat([error, readyForQuery, sessionEnds]));
      this.#effects.end();
    }
  }

  /** The connection has gone. */
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

  /** @returns false while there is nothing to do */
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
        this.#begin(step.bytes, step.applicationName);
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

  #begin(bytes: Buffer, applicationName: string): void {
    const refusal = this.#effects.admit(applicationName);
    if (refusal === undefined) {
      this.#state = "ready";
      this.#effects.write(Buffer.concat([bytes, sessionBegins]));
    } else {
      this.fail(refusal);
    }
  }

  /** @returns false while there is nothing to do */
  #stepReady(): boolean {
    const reader = this.#reader;
    if (!reader.readHeader()) return false;
    const { type, bodyBytes } = reader;
    if (type !== queryType) return this.#other(type, bodyBytes);
    if (bodyBytes < 1 || bodyBytes > maxMessageBytes) {
      this.fail(violation(`a query cannot have a length of ${bodyBytes} bytes`));
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
    else this.fail(violation("a query must end in its only NUL"));
    return true;
  }

  #other(type: number, bodyBytes: number): boolean {
    if (bodyBytes !== 0 || (type !== terminateType && type !== syncType && type !== flushType)) {
      const shown = type > 0x20 && type < 0x7f ? `"${String.fromCharCode(type)}"` : `0x${type.toString(16)}`;
      this.fail(violation(`the gateway answers simple queries only, and got a message of type ${shown}`));
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
      if (answer instanceof Promise) answer.then(this.#settleLater, this.#settleFailedLater);
      else this.#settle(answer);
    } catch (error) {
      this.#settleFailed(error);
    }
  }

  readonly #settleLater = (answer: Answer): void => {
    this.#settle(answer);
    this.#run();
  };

  readonly #settleFailedLater = (error: unknown): void => {
    this.#settleFailed(error);
    this.#run();
  };

  #settleFailed(error: unknown): void {
    this.#effects.answerFailed(error);
    this.#settle(errorAnswerOf(error));
  }

  #settle(answer: Answer): void {
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
  const message = `the call has ${bytes} bytes on its way to the gateway, and the limit is ${maxRequestBytes}`;
  const hint = "Send less at once, or start `hawser serve` with a greater --tune maxRequestBytes.";
  return { kind: "error", sqlstate, message, hint };
}
