/**
 * What test processes ask of the keeper: calls and answers as lines of JSON, in both directions over one connection. What
 * was made for a process goes when its connection ends, however it ends.
 */
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { type ErrorCode, HawserError } from "../errors/index.js";

/** A stack as the keeper made it. */
export interface MadeStack {
  /** Of letters and digits, unlike any other: fit for a subject, a stream or a table. */
  readonly id: string;
  readonly databaseUrl: string;
  readonly natsUrl: string;
}

/** Which of a stack's connections. */
export type Side = "postgres" | "nats";

/** Each call: what it asks, and what it is answered. */
export interface Calls {
  /** Resolves when the servers answer and Hawser is in the template. */
  ready(): void;
  /** Whether somebody has to prepare the template of a key; then where. Others who ask wait until it is prepared. */
  template(ask: { readonly key: string }): { readonly make: string | null };
  /** The template is prepared, or has failed. */
  prepared(ask: { readonly key: string; readonly failed: boolean }): void;
  /** A database, and what belongs to it. @param ask.template null: what Hawser installs alone */
  open(ask: { readonly template: string | null; readonly serve: boolean }): MadeStack;
  drop(ask: { readonly id: string }): void;
  cut(ask: { readonly id: string; readonly side: Side; readonly silent: boolean }): void;
  restore(ask: { readonly id: string; readonly side: Side }): void;
  /** A process group that is not to outlive the caller. */
  adopt(ask: { readonly pid: number }): void;
  /** Ends everything, for all. */
  stop(): void;
}

type Ask<C extends keyof Calls> = Parameters<Calls[C]>[0];
type Answer<C extends keyof Calls> = ReturnType<Calls[C]>;

/** Who answers calls. */
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

/** Answers what comes over the connection. */
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

/** The other end may be killed at any time: what then becomes of the connection its `close` tells. */
function linesOf(socket: Socket, onLine: (line: string) => void): void {
  socket.on("error", () => undefined);
  // It passes on the errors of its input.
  createInterface({ input: socket })
    .on("error", () => undefined)
    .on("line", onLine);
}

/** Makes calls over a connection. It keeps the process alive only while a call is under way. */
export class Caller {
  readonly #socket: Socket;
  readonly #waiting = new Map<number, { resolve(answer: unknown): void; reject(error: Error): void }>();
  readonly #why: () => string;
  /** Resolves when the keeper has ended, or its connection. */
  readonly ended: Promise<void>;
  #id = 0;
  #ended = false;

  /** @param why what is known of an end that nobody asked for */
  constructor(socket: Socket, why: () => string) {
    this.#socket = socket;
    this.#why = why;
    socket.unref();
    this.ended = new Promise((resolve) => {
      socket.on("close", () => {
        this.#end();
        resolve();
      });
    });
    linesOf(socket, (line) => this.#onAnswer(JSON.parse(line) as AnswerLine));
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  /** @throws HawserError with the code of what failed; `dev_server_failed` if the keeper has gone */
  call<C extends keyof Calls>(call: C, ...[ask]: Parameters<Calls[C]>): Promise<Answer<C>> {
    if (this.#ended) return Promise.reject(this.#gone());
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

  #end(): void {
    this.#ended = true;
    for (const { reject } of this.#waiting.values()) reject(this.#gone());
    this.#waiting.clear();
  }

  #gone(): HawserError {
    return new HawserError(
      "dev_server_failed",
      `The process that keeps the servers of this run has ended. ${this.#why()}`,
    );
  }
}
