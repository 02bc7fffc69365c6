/**
 * One process of a mesh, as the test holds it.
 */
import { type ChildProcess, fork } from "node:child_process";
import type { Readable } from "node:stream";
import { nodeProgram, projectDirectory } from "../../support/built-programs.js";
import { Journal } from "./journal.js";
import type { MeshCalls, MeshFailure, MeshPeerOptions, MeshReport, MeshRequest } from "./mesh-protocol.js";

/** What a process was refused with. */
export class MeshError extends Error {
  constructor(readonly failure: MeshFailure) {
    super([`${failure.code}: ${failure.message}`, ...failure.causes].join("; "));
  }
}

/** A process that ended before it answered. */
export class MeshProcessEnded extends Error {}

/** A peer in a process of its own. Disposing kills it. */
export class MeshProcess implements AsyncDisposable {
  readonly journal: Journal;
  readonly ended: Promise<{ readonly status: number | null; readonly signal: NodeJS.Signals | null }>;
  readonly #child: ChildProcess;
  readonly #answers = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  readonly #ready: Promise<void>;
  #calls = 0;
  #output = "";

  constructor(
    readonly options: MeshPeerOptions,
    execArgv: readonly string[] = [],
  ) {
    this.journal = new Journal(options.journal);
    const { execArgv: flags, file } = nodeProgram("test/faults/programs/mesh-peer.ts");
    const child = fork(file, [JSON.stringify(options)], {
      cwd: projectDirectory,
      execArgv: [...execArgv, ...flags],
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.#child = child;
    const outputs = [child.stdout, child.stderr].map(async (stream) => {
      for await (const chunk of stream as Readable) this.#output += chunk;
    });
    const exit = new Promise<{ status: number | null; signal: NodeJS.Signals | null }>((resolve) => {
      child.once("exit", (status, signal) => resolve({ status, signal }));
    });
    this.ended = Promise.all([exit, ...outputs]).then(([end]) => end);
    let ready: () => void = () => undefined;
    this.#ready = new Promise((resolve, reject) => {
      ready = resolve;
      void this.ended.then(() => reject(this.#gone()));
    });
    this.#ready.catch(() => undefined);
    child.on("message", (report: MeshReport) => (report.kind === "ready" ? ready() : this.#hear(report)));
    void this.ended.then(() => {
      for (const { reject } of this.#answers.values()) reject(this.#gone());
    });
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Resolves when the program has begun. */
  async ready(): Promise<this> {
    await this.#ready;
    return this;
  }

  /** Asks the process. @throws MeshError with what its peer threw; MeshProcessEnded */
  async call<Name extends keyof MeshCalls>(
    method: Name,
    ...args: Parameters<MeshCalls[Name]>
  ): Promise<ReturnType<MeshCalls[Name]>> {
    await this.#ready;
    const id = ++this.#calls;
    return await new Promise((resolve, reject) => {
      this.#answers.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#child.send({ id, method, args } satisfies MeshRequest, (error) => error && reject(this.#gone()));
    });
  }

  /** Sends a signal to this very process. */
  kill(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** Kills it as a machine that loses its power would, and waits until it is gone. */
  async crash(): Promise<void> {
    if (this.isRunning) this.kill("SIGKILL");
    await this.ended;
  }

  /** Stops its peer and lets go of it: the process must end by itself. */
  async finish(): Promise<{ readonly status: number | null; readonly signal: NodeJS.Signals | null }> {
    await this.call("stop");
    this.#child.disconnect();
    return await this.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.crash();
  }

  #gone(): Error {
    const how = this.#child.signalCode ?? this.#child.exitCode;
    return new MeshProcessEnded(`process ${this.pid} (${this.options.peer.name}) has ended: ${how}. ${this.#output}`);
  }

  #hear({ id, value, failure }: Extract<MeshReport, { kind: "answer" }>): void {
    const waiting = this.#answers.get(id);
    this.#answers.delete(id);
    if (failure === undefined) waiting?.resolve(value);
    else waiting?.reject(new MeshError(failure));
  }
}
