/** Binds the worker of the queue to its process: to the session of the queue, the clock, and the calls of handlers. */
import { randomBytes } from "node:crypto";
import { asHawserError } from "../../../foundation/errors/index.js";
import { systemClock, Waiters } from "../../../foundation/runtime/index.js";
import type { DeadMessage, HandlerResult } from "../../channel/index.js";
import type { HandledLink } from "../../handlers/handled-link.js";
import type { HandlingHost } from "../../handlers/handling-host.js";
import { defaultTakeoverMs } from "../../handlers/handling-settings.js";
import { KeptOutcome } from "../../handlers/kept-result.js";
import type { QueuedMessage } from "../../store/index.js";
import type { OpenedWorker, OpenRequest, WorkerEffects } from "./effects.js";
import type { LeasedTurn } from "./leased-messages.js";
import type { Reply } from "./statements.js";
import { WorkerMachine } from "./worker-machine.js";

/** Longest lease of a worker. */
const longestLeaseMs = 600_000;

/** Starts a message that was taken. Never rejects. */
export type CallMessage = (
  link: HandledLink,
  turn: LeasedTurn,
  message: QueuedMessage,
  topic: string,
) => HandlerResult | Promise<HandlerResult>;

type QueueSession = HandlingHost["context"]["store"]["queue"];

export class WorkerDriver {
  readonly machine: WorkerMachine;
  readonly #host: HandlingHost;
  readonly #queue: QueueSession;
  readonly #call: CallMessage;
  readonly #whenIdle = new Waiters();
  #unlisten: (() => void)[] = [];

  constructor(host: HandlingHost, call: CallMessage = (...given) => host.calls.start(...given)) {
    this.#host = host;
    this.#call = call;
    this.#queue = host.context.store.queue;
    this.machine = new WorkerMachine(this.#effects());
  }

  start(): void {
    this.machine.start(this.#host.context.lease?.wasClean === false);
  }

  /** Gives back what has not begun, and ends the worker when no handler runs. No handler may start any more. */
  async stop(besideIdle?: Promise<unknown>): Promise<void> {
    this.machine.stop();
    await besideIdle;
    if (this.machine.turns.size > 0) await this.#whenIdle.next();
    if (!this.machine.isClosed) await this.#end();
  }

  /**
   * Cuts off the handlers that still run, at the deadline of a stop: their transactions are rolled back, and their messages given back, as
   * no attempt. Ends the worker.
   */
  async cutOff(): Promise<void> {
    await this.#host.calls.attempts.cutOff(this.machine.cutOff());
    const givenBack = new Promise<void>((resolve) => this.machine.giveBackCutOff(resolve));
    // What ends from here on is another's.
    await Promise.allSettled([givenBack, this.#end()]);
  }

  async #end(): Promise<void> {
    this.machine.endHandled();
    const worker = this.close();
    if (worker !== undefined) await this.#closeWorker(worker, this.machine.turns.report());
  }

  /** @returns the worker that is left in the store */
  close(): bigint | undefined {
    for (const stop of this.#unlisten) stop();
    return this.machine.close();
  }

  async #closeWorker(worker: bigint, report: string | null): Promise<void> {
    try {
      await this.#queue.closeWorker(worker, report);
    } catch (err) {
      this.#host.context.logger.debug({ err }, "could not end a worker of the queue");
    }
  }

  // ---- effects ----

  #effects(): WorkerEffects {
    const host = this.#host;
    const { handlers, dispatcher, quarantine, calls } = host;
    const { context } = host;
    const queue = this.#queue;
    return {
      ...{ host, handlers, dispatcher, quarantine, attempts: calls.attempts },
      get isUp() {
        return queue.isUp;
      },
      get server() {
        return queue.server;
      },
      clock: systemClock,
      logger: context.logger,
      leaseMs: this.#leaseMs,
      idleBeatMs: context.idleBeatMs,
      openSession: () => this.#openSession(),
      openWorker: (request, reply) => settle(this.#openWorker(request), reply),
      closeWorker: (worker) => void this.#closeWorker(worker, null),
      newWorkerId: randomWorker,
      send: (name, given, reply) => {
        const statement = queue[name] as (...given: unknown[]) => Promise<never>;
        settle(statement.apply(queue, given), reply);
      },
      received: (message) => {
        handlers.countsOf(message.topic).received += 1;
        if (message.isKept) message.kept = new KeptOutcome((json) => this.machine.writeProgress(message, json));
      },
      call: (turn) => {
        const { running } = turn;
        const { turns } = this.machine;
        const result = this.#call(this.machine, turn, running, running.topic);
        if (!(result instanceof Promise)) return turns.ended(turn, result);
        result
          .then((later) => turns.ended(turn, later))
          .catch((err) => context.logger.error({ err }, "a defect of Hawser: a handled message was not ended"));
      },
      afterThis: (callback) => queueMicrotask(callback),
      soon: (callback) => void setImmediate(callback),
      idle: () => this.#whenIdle.settle(),
      storeFailed: (error) => context.status.storeFailed(error),
      gaveUp: (message, dead) => this.#reportDead(message, dead),
    };
  }

  get #leaseMs(): number {
    return Math.min(this.#host.context.membership.takeoverMs ?? defaultTakeoverMs, longestLeaseMs);
  }

  #openSession(): void {
    const queue = this.#queue;
    const { machine } = this;
    queue.open();
    this.#unlisten = [
      queue.on("enqueued", (topic) => machine.enqueued(topic)),
      queue.on("settings", (topic) => machine.settingsChanged(topic)),
      queue.on("cancelled", (rank) => machine.mayBeCancelled(rank)),
      queue.on("lease", (leaseMs) => machine.leased(leaseMs)),
      queue.on("session", (state) => (state === "up" ? machine.sessionUp() : machine.sessionDown())),
    ];
  }

  async #openWorker({ topics, left, running, replaces }: OpenRequest): Promise<OpenedWorker> {
    const { workerName: name, lease, membership, settings } = this.#host.context;
    const kept = left && (await this.#queue.resumeWorker(left.worker, left.nextId, running));
    if (left !== undefined && kept !== undefined) return { worker: left.nextId, kept };
    // The process before this one has lost the name: it has ended, or will not go on.
    if (lease !== undefined && replaces === undefined) await this.#queue.endWorkers(name);
    const { group } = membership;
    const { concurrency } = settings;
    const options = { name, topics, group, concurrency, leaseMs: this.#leaseMs, replaces };
    return { worker: await this.#queue.openWorker(options), kept: undefined };
  }

  #reportDead(message: QueuedMessage, dead: Omit<DeadMessage, "message" | "failures">): void {
    const { topic, sender, messageId: id } = message;
    const { errorCode: code, errorMessage } = dead;
    const peer = sender?.name ?? "";
    this.#host.context.status.report({
      kind: "dead_letter",
      topic,
      peer,
      id,
      stored: true,
      code,
      message: errorMessage,
    });
  }
}

function settle<Result>(query: Promise<Result>, reply: Reply<Result>): void {
  query.then((result) => reply.answered(result)).catch((thrown: unknown) => reply.failed(asHawserError(thrown)));
}

const randomWorker = (): bigint => BigInt.asUintN(53, randomBytes(8).readBigUInt64LE()) || 1n;
