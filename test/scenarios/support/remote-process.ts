/**
 * A program that does what a test asks of it over IPC: started, asked, listened to and killed.
 */
import { type ChildProcess, fork } from "node:child_process";
import type { Readable } from "node:stream";
import { nodeProgram, projectDirectory } from "../../support/built-programs.js";
import { optionsVariable, type RemoteFailure, type RemoteReport, type RemoteRequest } from "./remote-protocol.js";

/** Error of a call to a process. */
export class RemoteError extends Error {
  constructor(readonly failure: RemoteFailure) {
    super([`${failure.code}: ${failure.message}`, ...failure.causes].join("; "));
  }

  get code(): string {
    return this.failure.code;
  }
}

/** A process that ended before it answered. */
export class RemoteProcessEnded extends Error {}

/** End of a process. */
interface ProcessEnd {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A program whose requests are those of `Calls`. Disposing kills it. */
export class RemoteProcess<Calls extends { [Name in keyof Calls]: (...args: never[]) => unknown }>
  implements AsyncDisposable
{
  readonly ended: Promise<ProcessEnd>;
  readonly #child: ChildProcess;
  readonly #answers = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  readonly #ready: Promise<void>;
  #calls = 0;
  #output = "";

  /**
   * @param script given relative to the root; it finds the options as JSON in {@link optionsVariable}: others can read a
   *   command line, and they hold the URL of the database
   * @param launcher a command that becomes Node with the arguments behind it, such as `ip netns exec there`
   * @param directory root of the project, or of a copy
   */
  constructor(
    script: string,
    options: object,
    execArgv: readonly string[] = [],
    launcher: readonly [string, ...string[]] | undefined = undefined,
    directory = projectDirectory,
  ) {
    const { execArgv: flags, file } = nodeProgram(script, directory);
    const [execPath, ...behind] = [...(launcher ?? []), process.execPath] as [string, ...string[]];
    const child = fork(file, [], {
      cwd: directory,
      env: { ...process.env, [optionsVariable]: JSON.stringify(options) },
      execPath,
      execArgv: [...behind, ...execArgv, ...flags],
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.#child = child;
    const outputs = [child.stdout, child.stderr].map(async (stream) => {
      for await (const chunk of stream as Readable) this.#output += chunk;
    });
    // Not "close": that waits for the channel, too, which may have been let go of already.
    const exit = new Promise<ProcessEnd>((resolve) => {
      child.once("exit", (status, signal) => resolve({ status, signal }));
    });
    this.ended = Promise.all([exit, ...outputs]).then(([end]) => end);
    let ready: () => void = () => undefined;
    this.#ready = new Promise((resolve, reject) => {
      ready = resolve;
      void this.ended.then(() => reject(this.#gone()));
    });
    this.#ready.catch(() => undefined);
    child.on("message", (report: RemoteReport) => {
      if (report.kind === "ready") ready();
      else if (report.kind === "answer") this.#settle(report);
      else this.hear(report as never);
    });
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

  /** Text of standard output and standard error so far. */
  get output(): string {
    return this.#output;
  }

  /** Resolves when the program has begun. */
  async ready(): Promise<this> {
    await this.#ready;
    return this;
  }

  /** Asks the process. @throws RemoteError with what its peer threw; RemoteProcessEnded */
  async call<Name extends keyof Calls & string>(
    method: Name,
    ...args: Parameters<Calls[Name]>
  ): Promise<ReturnType<Calls[Name]>> {
    return (await this.#ask(method, args)) as ReturnType<Calls[Name]>;
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

  /** Stops its peer and lets go of it: the process must end by itself, with nothing left to do. */
  async finish(): Promise<ProcessEnd> {
    await this.#ask("stop", []);
    this.#child.disconnect();
    return await this.ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.crash();
  }

  /** Receives reports that the process sends without a call. */
  protected hear(_report: never): void {}

  async #ask(method: string, args: readonly unknown[]): Promise<unknown> {
    await this.#ready;
    const id = ++this.#calls;
    return await new Promise((resolve, reject) => {
      this.#answers.set(id, { resolve, reject });
      this.#child.send({ id, method, args } satisfies RemoteRequest, (error) => error && reject(this.#gone()));
    });
  }

  #gone(): Error {
    const how = this.#child.signalCode ?? this.#child.exitCode;
    return new RemoteProcessEnded(`process ${this.pid} has ended (${how}). It wrote:\n${this.#output}`);
  }

  #settle({ id, value, failure }: Extract<RemoteReport, { kind: "answer" }>): void {
    const waiting = this.#answers.get(id);
    this.#answers.delete(id);
    if (failure === undefined) waiting?.resolve(value);
    else waiting?.reject(new RemoteError(failure));
  }
}
