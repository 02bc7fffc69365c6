/**
 * Peers as processes: started, asked, listened to and killed by a test.
 */
import { type ChildProcess, fork } from "node:child_process";
import type { Readable } from "node:stream";
import { onTestFinished } from "vitest";
import type { PeerStatus } from "../../../src/peer/index.js";
import { Log } from "../../peer/support/log.js";
import type { Received } from "../../peer/support/world.js";
import { nodeProgram, projectDirectory } from "../../support/built-programs.js";
import type { Calls, PeerProgramOptions, RemoteFailure, Report, Request } from "./protocol.js";

/** What a call to a process was refused with. */
class RemoteError extends Error {
  constructor(readonly failure: RemoteFailure) {
    super(`${failure.code}: ${failure.message}`);
  }

  get code(): string {
    return this.failure.code;
  }
}

/** How a process ended. */
export interface ProcessEnd {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A peer in a process of its own. Killed when the test has finished, if it still runs. */
export class PeerProcess {
  readonly messages = new Log<Received>();
  readonly statuses = new Log<PeerStatus>();
  /** Numbers of the stream that were confirmed, with how. */
  readonly confirmed = new Log<{ readonly number: number; readonly outcome: string }>();
  readonly unconfirmed = new Log<{ readonly number: number; readonly failure: RemoteFailure }>();
  readonly ended: Promise<ProcessEnd>;
  readonly #child: ChildProcess;
  readonly #answers = new Map<number, { resolve(value: unknown): void; reject(error: Error): void }>();
  readonly #ready: Promise<void>;
  #calls = 0;
  #output = "";

  constructor(options: PeerProgramOptions, execArgv: readonly string[] = []) {
    const { execArgv: flags, file } = nodeProgram("test/scenarios/programs/peer-process.ts");
    const child = fork(file, [JSON.stringify(options)], {
      cwd: projectDirectory,
      execArgv: [...execArgv, ...flags],
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
    child.on("message", (report: Report) => (report.kind === "ready" ? ready() : this.#hear(report)));
    void this.ended.then(() => {
      for (const { reject } of this.#answers.values()) reject(this.#gone());
    });
    onTestFinished(async () => {
      child.kill("SIGKILL");
      await this.ended;
    });
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** What it wrote to standard output and standard error. */
  get output(): string {
    return this.#output;
  }

  /** Resolves when the program has begun. */
  async ready(): Promise<this> {
    await this.#ready;
    return this;
  }

  /** Asks the process. Rejects with a RemoteError as its peer does, or when it ends before. */
  async call<Name extends keyof Calls>(
    method: Name,
    ...args: Parameters<Calls[Name]>
  ): Promise<ReturnType<Calls[Name]>> {
    await this.#ready;
    const id = ++this.#calls;
    return await new Promise((resolve, reject) => {
      this.#answers.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#child.send({ id, method, args } satisfies Request, (error) => error && reject(this.#gone()));
    });
  }

  /** Sends a signal to this very process. */
  kill(signal: NodeJS.Signals): void {
    process.kill(this.pid, signal);
  }

  /** Kills it as a machine that loses its power would, and waits until it is gone. */
  async crash(): Promise<void> {
    this.kill("SIGKILL");
    await this.ended;
  }

  /** Stops its peer and lets go of it: the process must end by itself, with nothing left to do. */
  async finish(): Promise<ProcessEnd> {
    await this.call("stop");
    this.#child.disconnect();
    return await this.ended;
  }

  #gone(): Error {
    return new Error(`Process ${this.pid} has ended. It wrote:\n${this.#output}`);
  }

  #hear(report: Exclude<Report, { kind: "ready" }>): void {
    if (report.kind === "message") this.messages.push(report.message);
    else if (report.kind === "status") this.statuses.push(report.status);
    else if (report.kind === "confirmed") this.confirmed.push(report);
    else if (report.kind === "unconfirmed") this.unconfirmed.push(report);
    else {
      const waiting = this.#answers.get(report.id);
      this.#answers.delete(report.id);
      if (report.failure === undefined) waiting?.resolve(report.value);
      else waiting?.reject(new RemoteError(report.failure));
    }
  }
}

/**
 * Longer than the default, so that a message to somebody who is there is delivered also where a busy machine keeps its
 * acknowledgement waiting; one to somebody who is not is stored at once all the same.
 */
const ackTimeoutMs = 15_000;

/** Starts a process with a peer named `name`, whose topic is the name up to the hyphen; it does not run yet. */
export function peerProcess(
  databaseUrl: string,
  name: string,
  options: Partial<PeerProgramOptions["peer"]> & Omit<PeerProgramOptions, "peer"> = {},
  execArgv: readonly string[] = [],
): PeerProcess {
  const { handler, ledgerUrl, ...peer } = options;
  const topic = name.split("-")[0] as string;
  return new PeerProcess(
    { peer: { name, topic, listen: "127.0.0.1:0", databaseUrl, ackTimeoutMs, ...peer }, handler, ledgerUrl },
    execArgv,
  );
}

/** The same, running. */
export async function runningPeer(...args: Parameters<typeof peerProcess>): Promise<PeerProcess> {
  const started = peerProcess(...args);
  await started.call("run");
  return started;
}
