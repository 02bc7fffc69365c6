/** Statements of a worker of the queue, in one session, which carries them out in the order of their calls. */
import type { HawserError } from "../../../foundation/errors/index.js";
import type { Queue } from "../../store/index.js";

type Statements = Pick<
  Queue,
  | "serveTopics"
  | "extend"
  | "rest"
  | "take"
  | "giveBack"
  | "done"
  | "retry"
  | "giveUp"
  | "begin"
  | "beginUnique"
  | "setProgress"
  | "endCancelled"
  | "waitFor"
  | "stopWaiting"
  | "hasPassed"
>;

export type StatementName = keyof Statements;

/** Arguments of a statement. */
export type Given<Name extends StatementName> = Parameters<Statements[Name]>;

/** Answer to a statement. */
export type Answer<Name extends StatementName> = Awaited<ReturnType<Statements[Name]>>;

/** End of a statement: one of both is called, later. `failed` also if `answered` has thrown. */
export interface Reply<Result> {
  answered(result: Result): void;
  failed(error: HawserError): void;
}

/** Session of the queue. */
export interface StatementSession {
  /** True while statements can be sent. */
  readonly isUp: boolean;
  /** Identity of the server that they are sent to. */
  readonly server: string | undefined;
  send<Name extends StatementName>(name: Name, given: Given<Name>, reply: Reply<Answer<Name>>): void;
}

const ignore = (): void => undefined;

/** Reply to a statement whose end does not matter. */
export const ignoredReply: Reply<unknown> = { answered: ignore, failed: ignore };

/** Statements of one term of a worker. Their answers count only while the term goes on, and one that fails ends it. */
export class TermStatements {
  readonly worker: bigint;
  readonly session: StatementSession;
  readonly #term: { readonly isOver: boolean };
  readonly #onFailed: (error: HawserError) => void;

  /** @param onFailed called when a statement has failed while the term goes on */
  constructor(
    term: { readonly isOver: boolean },
    worker: bigint,
    session: StatementSession,
    onFailed: (error: HawserError) => void,
  ) {
    this.#term = term;
    this.worker = worker;
    this.session = session;
    this.#onFailed = onFailed;
  }

  /** @param answered called if the term goes on then */
  send<Name extends StatementName>(
    name: Name,
    given: Given<Name>,
    answered: (answer: Answer<Name>) => void = ignore,
  ): void {
    this.session.send(name, given, {
      answered: (answer) => this.#term.isOver || answered(answer),
      failed: (error) => this.#term.isOver || this.#onFailed(error),
    });
  }

  /** @param ended called in any case: with undefined if the statement has failed, or the term is over */
  ask<Name extends StatementName>(
    name: Name,
    given: Given<Name>,
    ended: (answer: Answer<Name> | undefined) => void,
  ): void {
    let hasEnded = false;
    const end = (answer: Answer<Name> | undefined): void => {
      if (hasEnded) return;
      hasEnded = true;
      ended(answer);
    };
    this.session.send(name, given, {
      answered: (answer) => end(this.#term.isOver ? undefined : answer),
      failed: (error) => {
        if (!this.#term.isOver) this.#onFailed(error);
        end(undefined);
      },
    });
  }
}
