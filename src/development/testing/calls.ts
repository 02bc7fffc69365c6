/**
 * Protocol between test processes and the keeper: calls and answers as lines of JSON, in both directions over one
 * connection. Resources of a process are released when its connection ends, for any reason.
 */
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { type ErrorCode, HawserError } from "../../foundation/errors/index.js";

/** Stack that the keeper created. */
export interface MadeStack {
  /** Unique identifier of letters and digits, usable in a subject, a stream or a table name. */
  readonly id: string;
  readonly databaseUrl: string;
  readonly natsUrl: string;
}

/** Server side of a stack's connections. */
export type Side = "postgres" | "nats";

/** Calls with their parameters and results. */
export interface Calls {
  /** Resolves when the servers answer and Hawser is installed in the template. */
  ready(): void;
  /**
   * Returns the URL of the template to prepare, or null if it is prepared. Other callers wait until the first has
   * prepared it.
   */
  template(ask: { readonly key: string }): { readonly make: string | null };
  /** Reports that the template is prepared, or has failed. */
  prepared(ask: { readonly key: string; readonly failed: boolean }): void;
  /** Creates a database and its NATS account. @param ask.template null for a database with Hawser's objects only */
  open(ask: { readonly template: string | null; readonly serve: boolean }): MadeStack;
  drop(ask: { readonly id: string }): void;
  cut(ask: { readonly id: string; readonly side: Side; readonly silent: boolean }): void;
  restore(ask: { readonly id: string; readonly side: Side }): void;
  /** Registers a process group that must not outlive the caller. */
  addProgram(ask: { readonly pid: number }): void;
  /** Stops everything, for all processes. */
  stop(): void;
}

type Ask<C extends keyof Calls> = Parameters<Calls[C]>[0];
type Answer<C extends keyof Calls> = ReturnType<Calls[C]>;

/** Implementation of the calls. */
export type Answering = {
  readonly [C in keyof Calls]: (ask: Ask<C>) => Promise<Answer<C>>;
};

interface CallLine {
  readonly id: number;
  readonly call: keyof Calls;
  readonly ask?: unknown;
}

interface AnswerLine {
  readonly id: number;
  readonly answer?: unknown;
  readonly error?: { readonly code: ErrorCode; readonly message: string };
}

/** Answers the calls of a connection. */
export function answerCalls(socket: Socket, answering: Answering): void {
  const answer = async ({ id, call, ask }: CallLine): Promise<AnswerLine> => {
    try {
      return { id, answer: await (answering[call] as (ask: unknown) => Promise<unknown>)(ask) };
    } catch (error) {
      const code = error instanceof HawserError ? error.code : "dev_server_failed";
      return { id, error: { code, message: (error as Error).message } };
    }
  };
  linesOf(socket, (line) => {
    void answer(JSON.parse(line) as CallLine).then((answered) => socket.write(`${JSON.stringify(answered)}\n`));
  });
}

/** Reads lines. Errors are ignored, because the other end may be killed at any time and `close` reports the end. */
function linesOf(socket: Socket, onLine: (line: string) => void): void {
  socket.on("error", () => undefined);
  // readline passes on the errors of its input.
  createInterface({ input: socket })
    .on("error", () => undefined)
    .on("line", onLine);
}

/** Makes calls over a connection. It keeps the process alive only while a call is pending. */
export class Caller {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, { resolve(answer: unknown): void; reject(error: Error): void }>();
  readonly #why: () => string;
  /** Resolves when the keeper or its connection has ended. */
  readonly ended: Promise<void>;
  #id = 0;

  /** @param why returns the known reason of an unexpected end */
  constructor(socket: Socket, why: () => string) {
    this.#socket = socket;
    this.#why = why;
    socket.unref();
    this.ended = new Promise((resolve) => {
      socket.on("close", () => {
        for (const { reject } of this.#waiting.values()) reject(this.#gone());
        this.#waiting.clear();
        resolve();
      });
    });
    linesOf(socket, (line) => this.#onAnswer(JSON.parse(line) as AnswerLine));
  }

  get hasEnded(): boolean {
    return this.#socket.closed;
  }

  /** @throws HawserError with the code of the failure; `dev_server_failed` if the keeper has ended */
  call<C extends keyof Calls>(call: C, ...[ask]: Parameters<Calls[C]>): Promise<Answer<C>> {
    if (this.hasEnded) return Promise.reject(this.#gone());
    const id = ++this.#id;
    this.#socket.ref();
    return new Promise<Answer<C>>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (answer: unknown) => void, reject });
      this.#socket.write(`${JSON.stringify({ id, call, ask } satisfies CallLine)}\n`);
    });
  }

  #onAnswer({ id, answer, error }: AnswerLine): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) this.#socket.unref();
    if (error === undefined) waiting?.resolve(answer);
    else waiting?.reject(new HawserError(error.code, error.message));
  }

  #gone(): HawserError {
    return new HawserError(
      "dev_server_failed",
      `The process that keeps the servers of this run has ended. ${this.#why()}`,
    );
  }
}
